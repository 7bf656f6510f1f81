# SPDX-License-Identifier: Apache-2.0
"""What an instance has set, and what is put in place for it on the port (CMD-1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.at.syntax import parse, unparse
from atrund.atrun import reporting
from atrund.atrun.interface import PORT_DEFAULTS, REGISTERS, Interface, from_json, is_remembered, prelude
from atrund.atrun.ranges import Values


def after(*lines: str) -> Interface:
    """An interface after the module took these commands."""
    interface = Interface()
    for line in lines:
        for command in parse(line):
            interface = interface.remembering(command)
    return interface


@pytest.mark.parametrize("name", REGISTERS)
def test_every_default_is_within_its_range_and_is_not_held(name: str) -> None:
    assert REGISTERS[name].allows(REGISTERS[name].defaults)
    assert Interface().with_values(name, REGISTERS[name].defaults) == Interface()


def test_the_defaults_are_those_of_the_rules() -> None:
    interface = Interface()
    assert [interface.value(name) for name in ("E", "Q", "V", "+CMEE", "S2", "S3", "S4", "S5", "S12")] == [
        1, 0, 1, 0, 43, 13, 10, 8, 50,
    ]  # fmt: skip
    assert interface.on("E")
    assert not interface.on("Q")


def test_a_value_is_the_instance_s_own_until_it_is_set_back() -> None:
    changed = Interface().with_values("S3", (10,))
    assert changed.value("S3") == 10
    assert Interface().value("S3") == 13
    assert changed.with_values("S3", (13,)) == Interface()


@pytest.mark.parametrize(
    ("line", "name", "values"),
    [
        ("AT+CMGF=1", "+CMGF", ("1",)),
        ('AT+CSCS="UCS2"', "+CSCS", ('"UCS2"',)),
        ('AT+CPMS="ME"', "+CPMS", ('"ME"',)),
        ('AT+CPMS="ME","SM";+CPMS="SM"', "+CPMS", ('"SM"', '"SM"')),
        ('AT+CPMS=,"SM"', "+CPMS", ("", '"SM"')),
        ("AT+CSMP=17,,0,8", "+CSMP", ("17", "167", "0", "8")),
        ('AT+CSMP=25,"26/11/22,10:00:00+04"', "+CSMP", ("25", '"26/11/22,10:00:00+04"', "0", "0")),
    ],
)
def test_what_the_module_keeps_per_port_is_remembered(line: str, name: str, values: tuple[str, ...]) -> None:
    assert after(line).port == {name: values}


@pytest.mark.parametrize(
    "line", ["AT+CMGF=0", 'AT+CSCS="IRA"', "AT+CMGF?", "AT+CMGL=4", 'AT+CSCS="a;b"', "AT+CSMP=1234", "AT+CSMP=x"]
)
def test_the_default_a_question_or_a_form_that_none_has_is_not_remembered(line: str) -> None:
    assert after(line) == Interface()


@pytest.mark.parametrize(("line", "so"), [("AT+CMGF=1", True), ("AT+CMGF?", False), ("AT+CMGL=4", False)])
def test_set_commands_alone_are_remembered(line: str, so: bool) -> None:  # noqa: FBT001 - what is expected
    assert is_remembered(parse(line)[0]) is so


@pytest.mark.parametrize(
    ("line", "interface", "present", "sent"),
    [
        ("AT+CMGL=4", Interface(), {}, "AT"),
        ("AT+CMGL=4", Interface(), {"+CMGF": "0"}, "AT"),
        ("AT+CMGL=4", Interface(), {"+CMGF": "1", "+CSCS": '"UCS2"'}, 'AT+CMGF=0;+CSCS="IRA"'),
        ("AT+CMGL=4", Interface(), {"+CMGF": ""}, "AT+CMGF=0"),
        ("AT+CSQ", after("AT+CMGF=1"), {"+CMGF": "0"}, "AT"),
        ('AT+CMGL="ALL"', after("AT+CMGF=1"), {"+CMGF": "0"}, "AT+CMGF=1"),
        ('AT+CMGL="ALL"', after("AT+CMGF=1"), {"+CMGF": "1"}, "AT"),
        ("AT+CMGD=1", after("AT+CMGF=1", 'AT+CPMS="ME"'), {}, 'AT+CPMS="ME","SM","SM"'),
        ("AT+CMGD=1", Interface(), {"+CPMS": '"ME","SM","SM"'}, 'AT+CPMS="SM","SM","SM"'),
        ("AT+CMGD=1", after('AT+CPMS=,"ME"'), {}, 'AT+CPMS="SM","ME","SM"'),
        ("AT+CUSD=1", after('AT+CSCS="GSM"'), {}, 'AT+CSCS="GSM"'),
        ("AT+CSCS?", Interface(), {"+CSCS": '"GSM"'}, 'AT+CSCS="IRA"'),
        ("AT+CMGW=20", after("AT+CSMP=17,167,0,8"), {}, "AT+CSMP=17,167,0,8"),
    ],
)
def test_what_a_command_finds_its_way_by_is_put_in_place_if_another_moved_it(
    line: str, interface: Interface, present: dict[str, str], sent: str
) -> None:
    assert unparse(prelude(parse(line), interface, present, "SM")) == sent


@pytest.mark.parametrize(
    ("interface", "sent"),
    [
        (Interface(), "AT"),
        (after('AT+CPMS="ME"'), 'AT+CPMS="ME"'),
        (after('AT+CPMS=,"ME"'), "AT"),
        (after('AT+CPMS="ME","SM","ME"'), 'AT+CPMS="ME","SM","ME"'),
    ],
)
def test_while_the_daemon_s_memory_is_not_known_none_is_made_up(interface: Interface, sent: str) -> None:
    assert unparse(prelude(parse("AT+CMGD=1"), interface, {"+CPMS": ""}, "")) == sent


def values_of(table: dict[str, Values]) -> st.SearchStrategy[dict[str, list[int]]]:
    entries = {
        name: st.tuples(*(st.sampled_from(list(allowed)) for allowed in values.ranges)).map(list)
        for name, values in table.items()
    }
    return st.fixed_dictionaries({}, optional=entries)


@given(values_of(REGISTERS), values_of(reporting.SETTINGS), st.sampled_from(["AT+CMGF=1", 'AT+CPMS="ME"', "AT"]))
def test_a_stored_profile_reads_back_as_it_was(
    registers: dict[str, list[int]], reports: dict[str, list[int]], line: str
) -> None:
    interface = from_json({**registers, **reports, **after(line).to_json()})
    assert from_json(interface.to_json()) == interface
    for name, values in registers.items():
        assert interface.values(name) == tuple(values)
    for name, values in reports.items():
        assert reporting.setting(interface.reports, name) == tuple(values)
    assert interface.port == after(line).port


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ([], "no table"),
        ({"E": 1}, "'E': its values are no list"),
        ({"E": [2]}, "'E'"),
        ({"E": [True]}, "'E'"),
        ({"E": [1, 1]}, "'E'"),
        ({"+CREG": [9]}, "[+]CREG"),
        ({"+CMGF": ["1\r"]}, "[+]CMGF"),
        ({"+CSCS": [1]}, "[+]CSCS"),
        ({"+CFUN": [4]}, "[+]CFUN"),
    ],
)
def test_a_bad_profile_is_refused_by_name(value: object, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        from_json(value)


def test_every_port_default_is_read_back() -> None:
    stored = {name: list(values) for name, values in PORT_DEFAULTS.items()}
    assert set(from_json(stored).port) == set(PORT_DEFAULTS)


def test_reporting_is_kept_as_far_as_it_differs() -> None:
    (on, off, bad) = parse("AT+CREG=2;+CREG=0;+CREG=9")
    set_ = Interface().with_report(on)
    assert set_ is not None
    assert set_.reports == {"+CREG": (2,)}
    assert set_.with_report(off) == Interface()
    assert set_.with_report(bad) is None
