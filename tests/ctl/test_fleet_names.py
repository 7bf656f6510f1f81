# SPDX-License-Identifier: Apache-2.0
"""Which nodes `--nodes` means."""

from pathlib import Path

import pytest

from atrund.ctl.fleet_names import NamesError, in_order, is_name, wanted

KNOWN = ["site7-10", "site7-9", "site8-1", "Site7-1"]


def test_names_and_patterns() -> None:
    meant = wanted(["site7-*", "ghost", "ghost"])
    assert meant.names == ("ghost",)
    assert meant.among(KNOWN) == ["ghost", "site7-9", "site7-10"]
    assert [meant.matches(node) for node in ("ghost", "site7-1", "site8-1")] == [True, True, False]


def test_a_name_is_one_whether_it_is_known_or_not_and_comes_once() -> None:
    assert wanted(["site7-9", "site7-?", "site7-1[0-9]"]).among(KNOWN) == ["site7-9", "site7-10"]


def test_a_file_has_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "sites.txt"
    file.write_text("# our sites\nsite8-1\n\n  site7-*   # all of seven\r\n")
    meant = wanted([f"@{file}", "a"])
    assert (meant.names, meant.patterns) == (("site8-1", "a"), ("site7-*",))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "--nodes: '' names no node; it would be letters, digits"),
        ("a/b", "'a/b' names no node"),
        ("+", "'+' names no node"),
        ("#", "'#' names no node"),
        ("\u00e4", "names no node"),
        ("a b", "'a b' names no node"),
    ],
)
def test_what_names_no_node_is_refused(text: str, words: str) -> None:
    with pytest.raises(NamesError, match="names no node") as caught:
        wanted([text])
    assert words in str(caught.value)


def test_a_file_says_where_it_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("a\nb c\n")
    with pytest.raises(NamesError, match=f"{file}:2: 'b c' names no node"):
        wanted([f"@{file}"])
    with pytest.raises(NamesError, match="No such file or directory: /nowhere"):
        wanted(["@/nowhere"])
    file.write_bytes(b"\xff\n")
    with pytest.raises(NamesError, match="is no UTF-8 text"):
        wanted([f"@{file}"])


def test_a_file_without_an_end_is_not_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atrund.ctl.fleet_names.FILE_MAX", 1000)
    with pytest.raises(NamesError, match="/dev/zero is longer than 1000 octets"):
        wanted(["@/dev/zero"])


def test_too_many_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atrund.ctl.fleet_names.NODES_MAX", 3)
    file = tmp_path / "f"
    file.write_text("a\nb\nc\nd\n")
    with pytest.raises(NamesError, match="4 names; at most 3"):
        wanted([f"@{file}"])


def test_names_are_those_of_the_contract() -> None:
    assert is_name("debian-1f2e3d4c.local_7")
    assert not any(map(is_name, ("", "a/b", "a+", "x" * 65, "é", "a\n")))


def test_numbers_in_names_count_as_numbers() -> None:
    assert sorted(["n10", "n9", "n", "a2b", "2", "n9-b"], key=in_order) == ["a2b", "n", "n9", "n9-b", "n10", "2"]
