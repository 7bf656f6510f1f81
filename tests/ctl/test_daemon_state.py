# SPDX-License-Identifier: Apache-2.0
"""What `atrunctl doctor` makes of the status: the queue, a radio that is off, others at the port."""

import pytest

from atrund.ctl.daemon_state import RADIO_OFF, STATES, judge
from atrund.ctl.findings import Finding, Level


def test_a_radio_that_is_off_is_no_matter_of_the_antenna() -> None:
    off = "the radio was switched off by a command or another tenant (+CFUN: 4)"
    module = {"state": "not registered", "detail": off, "others": ["somebody has it open"]}
    assert list(judge({"module": module})) == [Finding(Level.WARNING, "module", f"not registered: {off}", RADIO_OFF)]
    module["detail"] = ""
    assert list(judge({"module": module})) == [
        Finding(Level.WARNING, "module", "not registered", STATES["not registered"][1])
    ]


@pytest.mark.parametrize(
    ("places", "shown"),
    [
        ([], ""),
        ([{"place": 0, "door": "tcp"}], ""),
        ([{"place": 0}, {"place": 1}, {"place": 2}], "2 waiting for usb:1-1"),
        ([{"place": 0}, *({"place": number} for number in range(1, 21)), {"more": 7}], "27 waiting for usb:1-1"),
        ("another form", ""),
        (["another form"], ""),
    ],
)
def test_who_waits_is_counted(places: object, shown: str) -> None:
    found = [finding.text for finding in judge({"queue": {"usb:1-1": places}})]
    assert found == ([shown] if shown else [])


def test_what_a_section_lists_is_said_in_words() -> None:
    hidden = {"key": "tcp.port", "door": "tcp", "peer": "operator@192.0.2.7"}
    (found,) = judge({"settings": {"locked": False, "hidden": [hidden, hidden | {"key": "sms.enabled"}], "none": []}})
    both = "hidden key tcp.port door tcp peer operator@192.0.2.7, key sms.enabled door tcp peer operator@192.0.2.7"
    assert found.text == f"locked no, {both}"
