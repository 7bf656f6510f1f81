# SPDX-License-Identifier: Apache-2.0
"""What would happen to a command line at a door, by which rule, and the way back: said, and nothing run (POL-1, POL-2).

`explain` and `explain_peer` give plain tables that can go out as JSON; `render` makes them lines to read.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from atrund.at.syntax import LineRefused, parse
from atrund.atrun.firewall import Rule, admits
from atrund.atrun.policy import Abilities, Asker, DoorPolicy, Finding, decide
from atrund.atrun.secrets import mask_line
from atrund.atrun.undo import CONFIRM_AFTER

Explanation = dict[str, Any]


def explain(
    line: str, asker: Asker, policy: DoorPolicy, abilities: Abilities, *, confirm_after: float = CONFIRM_AFTER
) -> Explanation:
    """Return what would happen to a line (AT or HAT). `confirm_after` in seconds."""
    plain = line[1:] if line[:3].upper() == "HAT" else line
    told: Explanation = {
        "line": mask_line(line),
        "door": asker.door.value,
        "peer": asker.names[0] if asker.names else None,
        "decision": "refused",
        "reason": None,
        "rule": None,
        "detail": None,
        "commands": [],
        "undo": None,
    }
    try:
        verdict = decide(parse(plain), asker, policy, abilities)
    except LineRefused as refused:
        return told | {"reason": refused.reason, "rule": "line", "detail": refused.detail}
    told |= {"decision": verdict.decision.value, "commands": [_command(finding) for finding in verdict.findings]}
    if verdict.refusal is not None:
        refusal = verdict.refusal
        told |= {"reason": refusal.reason.value, "rule": refusal.rule, "detail": refusal.detail}
    if verdict.plan is not None:
        told["undo"] = {"reads": [str(read) for read in verdict.plan.reads], "after_s": confirm_after}
    return told


def explain_peer(peer: str, rules: Sequence[Rule]) -> Explanation:
    """Return whether the firewall lets an address in, and by which rule. Raises `ValueError` for what is none."""
    for index, rule in enumerate(rules):
        if admits([rule], peer):
            shown = f"firewall[{index}]"
            return {"peer": peer, "decision": "allowed", "rule": shown, "detail": f"{rule.address} mask {rule.mask}"}
    admits((), peer)  # an address is one even where no rule looks at it
    why = "no rule admits it" if rules else "the firewall is empty: it admits nobody"
    return {"peer": peer, "decision": "refused", "rule": "firewall", "detail": why}


def render(told: Mapping[str, Any]) -> list[str]:
    """Return an explanation, as either function gives it, as lines."""
    if "commands" not in told:
        return [f"{told['peer']}: {told['decision']} by {told['rule']} ({told['detail']})"]
    who = f", asked by {told['peer']}" if told["peer"] else ""
    lines = [f"{told['line']} through {told['door']}{who}"]
    for one in told["commands"]:
        lines.append(f"  {one['command']}: {one['decision']} by {one['rule']}")
        lines += [f"      {what}: {one[key]}" for key, what in _SAID if one[key]]
    match told["decision"]:
        case "refused":
            lines.append(f"The line would be refused ({told['reason']}) by {told['rule']}: {told['detail']}.")
        case "allowed":
            lines.append("The line would run." if told["commands"] else "The line would be answered OK.")
        case _:
            undo = told["undo"]
            reads = f"after reading {', '.join(undo['reads'])}" if undo["reads"] else "with nothing to read first"
            lines.append(f"The line would run {reads}, and be undone {undo['after_s'] / 60:g} min later")
            lines.append("unless AT#ATRUNCONFIRM=<id> comes in another line.")
    return lines


_SAID = (("detail", "why"), ("way_back", "way back"))


def _command(finding: Finding) -> dict[str, Any]:
    return {
        "command": finding.shown,
        "decision": finding.decision.value,
        "rule": finding.rule,
        "detail": finding.detail or None,
        "way_back": finding.way_back or None,
    }
