# SPDX-License-Identifier: Apache-2.0
"""The way through `atrunctl setup`, from the first look to the word what to type next."""

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from atrund.config import ConfigError, Mistake, report, warnings
from atrund.config.files import FOLDER, read_file
from atrund.ctl.asking import Failed
from atrund.ctl.findings import Finding, Level
from atrund.ctl.host import Host
from atrund.ctl.setup import steps
from atrund.ctl.setup.answers import BROKER_FILE, LOGIN_FILE, Answers, read_answers, sections
from atrund.ctl.setup.place import PartlyWritten, Place, content, writable
from atrund.ctl.setup.text import FILE, MAIN, contested, difference, render
from atrund.ctl.terminal import complain, printable

ROOT: Final = Path("/etc/atrund")
SETTINGS: Final = f"{FOLDER}/{FILE}"


def set_up(answers: str | None, folder: str | None, name: str) -> int:
    """Go all the way; return the exit code. `folder` None is the usual one; `name` is that of one daemon of several."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.default_int_handler)  # so that each of them cleans up
    where = Path(folder) if folder is not None else ROOT / name
    try:
        return _set_up(where.absolute(), None if answers is None else Path(answers), name)
    except Failed as failed:
        complain(f"{failed}; nothing was changed")
        return failed.code
    except PartlyWritten as error:
        complain(str(error))
        return 1
    except ConfigError as error:
        complain(f"{report(error)}; nothing was changed")
        return 2
    except PermissionError as error:
        complain(f"{error.filename}: {error.strerror}; nothing was changed. As root it would be right: sudo atrunctl …")
        return 1
    except OSError as error:
        complain(f"{error.filename or where}: {error.strerror}; nothing was changed")
        return 1
    except (KeyboardInterrupt, EOFError):
        complain("interrupted; nothing was changed")
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _set_up(folder: Path, file: Path | None, name: str) -> int:
    if file is None and not sys.stdin.isatty():
        raise Failed("there is no terminal to ask at; --answers FILE would be right", 2)
    if not folder.exists() and not folder.parent.is_dir():
        raise Failed(f"{folder.parent} is not there; --config-dir names the folder of {MAIN}", 2)
    if not writable(folder):
        raise Failed(f"{folder}: this user may not write there; as root it would be right: sudo atrunctl setup")
    before = _before(folder)
    kept = {one: content(folder / one) is not None for one in (LOGIN_FILE, BROKER_FILE)}
    made = ""
    answers = None if file is None else read_answers(file)
    host = Host()
    seen = steps.look(host)
    _say(*steps.found(seen))
    ports = steps.free_ports(seen)
    if answers is not None:
        answers = _settled(answers, ports, before)
        if answers.tcp.user and answers.tcp.password is None and not kept[LOGIN_FILE]:
            right = "the path of a file that holds the password"
            raise ConfigError(file or folder, (Mistake("tcp.password_file", "is missing", right),))
        kept[BROKER_FILE] = False  # a file of answers says all
    else:
        from atrund.ctl.setup.ask import Questions

        questions = Questions(before, folder)
        answers = questions.ask(ports, login=kept[LOGIN_FILE], broker=kept[BROKER_FILE])
        made = questions.made
    _say(*steps.judge(host, answers.module.port))
    _write(folder, answers, kept, name, asking=file is None)
    if made:
        print(f"\nThe password of {printable(answers.tcp.user)}, shown this once: {made}")
    return 0


def _settled(answers: Answers, ports: list[str], before: dict[str, object]) -> Answers:
    """Fill in the port where it is for us to find: the one that was found before, if it can be."""
    if answers.module.port:
        return answers
    module = before.get("module")
    now = module.get("port") if isinstance(module, dict) else None
    if isinstance(now, str) and now and (not ports or now in ports):
        port = now
    elif len(ports) == 1:
        port = ports[0]
    elif ports:
        raise Failed(f"module.port: there are several modules: {', '.join(ports)}; name one of them", 2)
    else:
        raise Failed(f"module.port: {steps.NO_MODULE}, or others have its ports; {steps.ADVICE}")
    return replace(answers, module=replace(answers.module, port=port))


def _write(folder: Path, answers: Answers, kept: dict[str, bool], name: str, *, asking: bool) -> None:
    wanted: dict[str, str] = {}
    gone: list[str] = []
    has = {}
    for one, secret, used in (
        (LOGIN_FILE, answers.tcp.password, bool(answers.tcp.user)),
        (BROKER_FILE, answers.mqtt.password, bool(answers.mqtt.user)),
    ):
        has[one] = used and (secret is not None or kept[one])
        if not has[one]:
            gone.append(one)
        elif secret is not None:
            wanted[one] = f"{secret.reveal()}\n"
    settings = sections(answers, login=has[LOGIN_FILE], broker=has[BROKER_FILE])
    text = render(settings)
    wanted[SETTINGS] = text
    place = Place(folder, wanted, tuple(gone))
    for line, loses in contested(settings, _others(folder)):
        _say(Finding(Level.WARNING if loses else Level.NOTE, "keys", line))
    with place:
        _check(place, name, answers, asking=asking)
        if not place.changes:
            print(f"\nNothing is to change: {folder / SETTINGS} is as it should be.")
            return
        print(f"\n{difference(content(folder / SETTINGS) or '', text)}", end="")
        for one in place.changes:
            if one != SETTINGS:
                print(f"{'-' if one in gone else '+'} {folder / one}")
        if asking and not _yes("\nWrite it", default=True):
            raise Failed("not wanted")
        place.commit()
    _say(Finding(Level.OK, "written", str(folder / SETTINGS)))
    _next(answers, name)


def _check(place: Place, name: str, answers: Answers, *, asking: bool) -> None:
    """Check the whole, and try the broker. Raises `Failed`, and what is wrong is said."""
    try:
        config = place.check(name)
    except ConfigError as error:
        raise Failed(place.told(report(error)), 2) from None
    _say(Finding(Level.OK, "check", "the configuration is right"))
    _say(*(Finding(Level.WARNING, "check", place.told(warning)) for warning in warnings(config)))
    for key in ("ca_file", "cert_file", "key_file"):
        path = getattr(answers.mqtt, key)
        if path is not None and str(path.absolute()).startswith(("/root/", "/home/")):
            text = f"mqtt.{key}: the service can't see {path.absolute()}"
            _say(Finding(Level.WARNING, "check", text, f"put it into {place.folder}"))
    if not answers.mqtt.host or not answers.mqtt.check:
        return
    tried = steps.try_broker(config)
    _say(tried)
    if tried.level.bad and not (asking and _yes("Go on all the same", default=False)):
        raise Failed("the broker can't be used")


def _next(answers: Answers, name: str) -> None:
    """Say what to type now."""
    unit, ctl = (f"atrund@{name}", f"atrunctl -n {name}") if name else ("atrund", "atrunctl")
    lines = [
        (f"systemctl enable --now {unit}", f"if it runs already: systemctl restart {unit}"),
        (f"{ctl} status", ""),
        (f"{ctl} at AT+CSQ", ""),
    ]
    if answers.tcp.user:
        lines.append((f"telnet {answers.tcp.listen[0]} {answers.tcp.port}", "it asks for name and password"))
    if answers.sms.numbers:
        lines.append((f"{ctl} sms log", f"once {answers.sms.numbers[0]} has sent the SMS  AT+CSQ"))
    print("\nNow type:")
    for command, why in lines:
        print(f"  {command}{f'   # {why}' if why else ''}")


def _before(folder: Path) -> dict[str, object]:
    try:
        return read_file(folder / SETTINGS) if (folder / SETTINGS).exists() else {}
    except ConfigError as error:
        _say(Finding(Level.WARNING, "file", printable(str(error)), "it will be written anew"))
        return {}


def _others(folder: Path) -> list[tuple[str, dict[str, object]]]:
    """Return the tables of the other files, in the order in which they are read; the check says what is wrong."""
    found = []
    names = [(path.name, path) for path in sorted((folder / FOLDER).glob("*.toml")) if path.name[0] != "."]
    for name, path in [("", folder / MAIN), *names]:
        try:
            if name != FILE and path.exists():
                found.append((name, read_file(path)))
        except ConfigError:
            continue
    return found


def _yes(what: str, *, default: bool) -> bool:
    from atrund.ctl.setup.ask import yes

    return yes(what, default=default)


def _say(*findings: Finding) -> None:
    for finding in findings:
        print(f"{finding.level.value:7}  {finding.about:7}  {printable(finding.text)}")
        if finding.advice:
            print(f"{'':7}  {'':7}  -> {printable(finding.advice)}")
