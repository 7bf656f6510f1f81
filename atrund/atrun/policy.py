# SPDX-License-Identifier: Apache-2.0
"""What may not go to the module, judged on the parsed commands of a line (POL-1, POL-2, REQ-6, MOD-6, CMD-1, CMD-2).

Rules of this file: one command is weighed after the other, and the first that is refused refuses its whole line before
anything is sent. In this order: what no rule can allow (a name that is none, a prompt that can't be served, what only a
trusted door may administer), the door's rules and its default, hazards, data mode. What is said about a command is
found here once, for the judgement, the record of it, and whoever asks what would happen. No detail shows an argument,
for it may be a secret.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from atrund.at.prompts import is_served
from atrund.at.syntax import Command, Op
from atrund.atrun.hazards import HAZARDS, Undo, acts, dialled, hazard_of, number
from atrund.atrun.request import Door, Reason
from atrund.atrun.rules import NO_MISTAKE, Hazards, Rule, Verb, letters, verdict
from atrund.atrun.secrets import mask_line
from atrund.atrun.undo import Plan
from atrund.table import Word


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a line is refused: `rule` names the table or the rule, `detail` is for a person."""

    reason: Reason
    rule: str
    detail: str


@dataclass(frozen=True, slots=True)
class DoorPolicy:
    """What the configuration says about a door. `remote_admin`: it may administer the doors themselves (CMD-2)."""

    default: Verb = Verb.ALLOW
    rules: tuple[Rule, ...] = ()
    hazards: Hazards = Hazards.REFUSE
    remote_admin: bool = False


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: the door, and every name that a rule may mean (number; login and address; MQTT `<who>`).

    `forgeable`: the name may be another's, as the sender of a simple SMS.
    """

    door: Door = Door.LOCAL
    names: tuple[str, ...] = ()
    forgeable: bool = False


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the way can do: carry data for a prompt, turn its port over to data, answer the daemon's own commands."""

    prompts: bool = False
    data_mode: bool = False
    own_commands: bool = False


class Decision(Word):
    """What becomes of a command, or of a line."""

    ALLOWED = "allowed"
    CONFIRM = "to be confirmed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is said about one command. `detail` and `way_back` are "" for nothing."""

    command: Command = field(repr=False)
    decision: Decision
    rule: str
    detail: str = ""
    way_back: str = ""
    reason: Reason | None = None
    undo: Undo | None = field(default=None, repr=False)

    @property
    def shown(self) -> str:
        """The command without its secrets; made when it is wanted, for each request is judged on its way."""
        return mask_line(f"AT{self.command}")[2:]

    @property
    def refusal(self) -> Refusal | None:
        """The refusal that it is, if it is one."""
        if self.reason is None:
            return None
        back = f"; way back: {self.way_back}" if self.way_back else ""
        return Refusal(self.reason, self.rule, self.detail + back)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on a line. `plan` is there if it must be confirmed."""

    findings: tuple[Finding, ...]
    refusal: Refusal | None = None
    plan: Plan | None = None

    @property
    def decision(self) -> Decision:
        """What becomes of the line."""
        if self.refusal is not None:
            return Decision.REFUSED
        return Decision.ALLOWED if self.plan is None else Decision.CONFIRM


REMOTE_DEFAULT: Final = DoorPolicy()
LOCAL_DEFAULT: Final = DoorPolicy(hazards=Hazards.CONFIRM)
DEFAULTS: Final = {door: LOCAL_DEFAULT if door is Door.LOCAL else REMOTE_DEFAULT for door in Door}
"""What each door has where the configuration says nothing (POL-2)."""


def decide(
    commands: Iterable[Command],
    asker: Asker = Asker(),
    policy: DoorPolicy = REMOTE_DEFAULT,
    abilities: Abilities = Abilities(),
) -> Verdict:
    """Judge a line: what becomes of it, and for people what is said about each command, those behind a refused one too.

    An empty line is allowed.
    """
    line = tuple(commands)
    weighed = {command: _weigh(command, asker, policy, abilities) for command in dict.fromkeys(line)}
    findings = tuple(weighed[command] for command in line)
    steps = tuple((finding.command, finding.undo) for finding in findings if finding.undo is not None)
    refusal = next((finding.refusal for finding in findings if finding.refusal is not None), None)
    if refusal is None and steps and any(one.name == _CONFIRM and one.op is Op.SET for one in line):
        refusal = Refusal(Reason.POLICY, "confirm", "a hazard is confirmed in another line, when its effect is seen")
    return Verdict(findings, refusal, Plan(steps) if steps and refusal is None else None)


OWNED: Final = frozenset(
    """#SMSATRUN #SMSATRUNCFG #SMSATWL #TCPATRUNCFG #TCPATRUNL #TCPATRUND #TCPATRUNCLOSE #TCPATRUNFRWL #TCPATRUNAUTH
    #TCPATCMDSEQ #TCPATCONSER #ATRUNDELAY #ENAEVMONI #ENAEVMONICFG #EVMONI #ATRUNCONFIRM #SCFG #SCFGEXT
    E Q V X S2 S3 S4 S5 S12 Z &F &W &Y &P &V +CMEE +IPR +ICF +IFC &K &C &D &S \\Q""".split()
)
"""Commands that belong to the daemon or to the port that all doors share (CMD-1); the module never sees a door's."""

ADMINISTERING: Final = frozenset({"#SMSATWL", "#TCPATRUNFRWL", "#TCPATRUNAUTH"})
"""Set from afar only through a door that `remote_admin` names: they say who may come in (CMD-2)."""

FORGEABLE_NEVER: Final = frozenset({"#EVMONI", "#TCPATRUNCFG", "#TCPATRUND"})
"""The same for a simple SMS, whose sender can be forged: they make the device call, or act later (CMD-2)."""

PROMPTING: Final = frozenset(
    """+CMGS +CMGW +CMGC +CNMA #CMGS #CMGW #CMGSCT #SEMAIL #EMAILD #EMAILMSG #SSEND #SSENDEXT #SSENDUDP #SSENDUDPEXT
    #WSCRIPT #M2MWRITE #HTTPSND #SSLSEND #SSLSENDEXT #SSLSECDATA #SMTPCL #ESMTPMSG #FTPAPPEXT #APLAY #MQPUBS #LWM2MSET
    #GSENDDATA #CMQTTPUB #DWSENDR""".split()
)
"""Commands that wait for data behind a prompt (REQ-6), in their set or execution form."""

DATA_MODE: Final = frozenset(
    "A O +CGDATA #SD #SO #SKTD #SKTL #SKTOP #SSLD #SSLO #FTPPUT #FTPGET #FTPAPP #FTPLIST #SL #SA #OTAUPW".split()
)
"""Commands after which bytes are no commands any more (MOD-6), save `#SD` and its like in command mode; and `D`."""

_CONFIRM: Final = "#ATRUNCONFIRM"


def _weigh(command: Command, asker: Asker, policy: DoorPolicy, abilities: Abilities) -> Finding:
    refused = _never(command, asker, policy, abilities)
    if refused is not None:
        return _finding(command, Decision.REFUSED, refused.rule, refused.detail, reason=refused.reason)
    decided = verdict(policy.rules, command, asker.names)
    hazards = policy.hazards
    if decided is None:
        rule, verb, why = "default", policy.default, "no rule allows it"
    else:
        index, found = decided
        rule, verb, why = f"rules[{index}]", found.verb, f"denied by {found}"
        hazards = found.hazards or hazards
    if verb is Verb.DENY:
        return _finding(command, Decision.REFUSED, rule, f"{_name(command)}: {why}", reason=Reason.POLICY)
    if command.name in OWNED:
        return _finding(command, Decision.ALLOWED, rule)
    # A hazard says more about a command than that it enters data mode, so it is looked up first.
    weighed = _hazardous(command, hazards)
    if weighed is not None and weighed.decision is Decision.REFUSED:
        return weighed
    if not abilities.data_mode and _enters_data_mode(command):
        detail = f"{command.name} would turn the shared port into a data connection"
        return _finding(command, Decision.REFUSED, "data mode", detail, reason=Reason.DATA_MODE)
    return weighed or _finding(command, Decision.ALLOWED, rule)


def _never(command: Command, asker: Asker, policy: DoorPolicy, abilities: Abilities) -> Refusal | None:
    """What no rule can allow."""
    if command.name in OWNED:
        if not abilities.own_commands:
            return Refusal(Reason.POLICY, "owned", f"{command.name} belongs to the gateway, not to the module")
        return _administers(command, asker, policy)
    if (meant := _mistakable(command)) is not None:
        return Refusal(Reason.POLICY, "name", f"no command of the module, which may take it for {meant}")
    if command.name in PROMPTING and acts(command) and not (abilities.prompts and is_served(command)):
        return Refusal(
            Reason.PROMPT_UNSUPPORTED, "prompt", f"{command.name} waits for data, which cannot be given here"
        )
    # A module that knows no quotes in a dial string takes what stands behind the `;` for commands.
    if command.name == "D" and ";" in command.args.removesuffix(";"):
        return Refusal(Reason.POLICY, "dial", "D: a ';' may stand at its end only, quoted or not")
    return None


def _administers(command: Command, asker: Asker, policy: DoorPolicy) -> Refusal | None:
    if not acts(command) or asker.door is Door.LOCAL or policy.remote_admin:
        return None
    if command.name in ADMINISTERING:
        right = f'a local door, or policy.remote_admin = ["{asker.door.value}"]'
        return Refusal(Reason.POLICY, "admin", f"{command.name} is not set from afar; right is {right}")
    if command.name in FORGEABLE_NEVER and asker.forgeable:
        return Refusal(Reason.POLICY, "admin", f"{command.name} is not set by an SMS without a digest")
    return None


def _hazardous(command: Command, hazards: Hazards) -> Finding | None:
    hazard = hazard_of(command)
    if hazard is None:
        return None
    decision, reason, undo, detail = Decision.ALLOWED, None, None, f"{hazard.name}: {hazard.why}"
    if hazards is Hazards.CONFIRM and hazard.undo is not None:
        decision, undo = Decision.CONFIRM, hazard.undo
    elif hazards is not Hazards.ALLOW:
        decision, reason = Decision.REFUSED, Reason.POLICY
        detail += "" if hazards is Hazards.REFUSE else ", and nothing here could undo it"
    rule = "dial" if hazard.name == "D" else "hazard"
    return _finding(command, decision, rule, detail, way_back=hazard.way_back, reason=reason, undo=undo)


def _finding(
    command: Command,
    decision: Decision,
    rule: str,
    detail: str = "",
    *,
    way_back: str = "",
    reason: Reason | None = None,
    undo: Undo | None = None,
) -> Finding:
    return Finding(command, decision, rule, detail, way_back, reason, undo)


def _name(command: Command) -> str:
    """A command's name, without what ran into it: `+CPIN1234` is one name to the parser."""
    return mask_line(f"AT{command.name}")[2:]


def _enters_data_mode(command: Command) -> bool:
    if command.name == "D":
        return not command.args.endswith(";") or _is_packet_call(command.args)
    if not acts(command) or command.name not in DATA_MODE:
        return False
    return not (command.name in _COMMAND_MODE and number(command, _COMMAND_MODE[command.name]) == 1)


_COMMAND_MODE: Final = {"#SD": 6, "#SA": 1, "#SSLD": 4}
"""Where the argument stands that opens a socket in command mode (1): the connection then stays out of the port."""


def _is_packet_call(dial_string: str) -> bool:
    """A packet service dialled (3GPP TS 27.007 10.2.1), data mode with or without the `;` of a voice call."""
    digits = dialled(dial_string)
    return digits[:3] in {"*98", "*99"} and digits[3:4] in {"", "*", "#"}


def _mistakable(command: Command) -> str | None:
    """Return the listed command that a careless parser may take this one for: `+CFUN.=4`, `+CFUN4`, `+CF-UN=4`."""
    if not acts(command) or not command.extended or command.name in NO_MISTAKE:
        return None
    meant = _BY_LETTERS.get(letters(command.name))
    return meant if meant != command.name else None


_BY_LETTERS: Final = {
    letters(name): name for name in OWNED | PROMPTING | DATA_MODE | HAZARDS.keys() if Command(name, Op.SET).extended
}
