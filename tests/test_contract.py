# SPDX-License-Identifier: Apache-2.0
"""The MQTT contract in docs/contract is what the code does: keys, words, topics, limits, both ways."""

import base64
import enum
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator

from atrund import records
from atrund.at.syntax import LINE_MAX
from atrund.atrun import ask
from atrund.atrun.request import Door, End, Reason
from atrund.atrun.settings import INSTANCES
from atrund.broker import client, connection
from atrund.config import load
from atrund.config.mqtt import Mqtt
from atrund.config.values import Privacy, Queue
from atrund.doors import asking
from atrund.doors import mqtt as door
from atrund.module.lifecycle import State
from tests.support import contract, nodes
from tests.support.certificates import Authority

STAMP: Final = records.Stamp("3f1c", "2026-11-22T08:40:00.000Z", known=True)
SEQ: Final = {"seq": 812}
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
TOPICS: Final = sorted(contract.schemas())
PUBLISHED: Final = [topic for topic in TOPICS if topic not in contract.ASKED]
ASYNCAPI: Final[dict[str, Any]] = json.loads(contract.ASYNCAPI.read_text(encoding="utf-8"))
BASE: Final = "{prefix}/{node}/"
OFFICIAL: Final = contract.FOLDER.parents[1] / ".npm/node_modules/@asyncapi/specs/schemas/3.0.0.json"


def words(topic: str, key: str) -> set[str]:
    """The words that a key is said to have, those of later versions aside."""
    schema = contract.schemas()[topic]
    found = schema["properties"][key]
    if "$ref" in found:
        found = resolved(schema, found["$ref"])
    return {word for choice in found["anyOf"] for word in choice.get("enum", ())}


def resolved(document: Any, pointer: str) -> Any:  # noqa: ANN401 - JSON
    assert pointer.startswith("#/"), pointer
    for step in pointer[2:].split("/"):
        document = document[step.replace("~1", "/").replace("~0", "~")]
    return document


def values(kind: type[enum.Enum]) -> set[str]:
    return {member.value for member in kind}


def everything(node: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON
    """Every object of a document."""
    if isinstance(node, dict):
        yield node
    for below in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from everything(below)


# The schemas themselves.


@pytest.mark.parametrize("topic", TOPICS)
def test_a_schema_stands_alone_and_explains_itself(topic: str) -> None:
    schema = contract.schemas()[topic]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == DIALECT
    assert schema["$id"].endswith(f"/v{records.VERSION}/{topic.replace('/', '-')}.json")
    assert schema["title"]
    for node in everything(schema):
        if "$ref" in node:
            assert resolved(schema, node["$ref"])
        for key, found in (node.get("properties") or {}).items() if node is not schema.get("not") else ():
            told = resolved(schema, found["$ref"]) if "$ref" in found else found
            assert told.get("description"), key
    assert ("Ignore keys" in schema["description"]) == (topic in PUBLISHED)
    assert schema.get("additionalProperties", True) is (topic in PUBLISHED)
    assert set(schema["required"]) <= set(schema["properties"])
    used = {node["$ref"].removeprefix("#/$defs/") for node in everything(schema) if "$ref" in node}
    assert used == set(schema.get("$defs", ()))


def test_what_two_schemas_define_by_one_name_is_one_thing() -> None:
    seen: dict[str, Any] = {}
    for schema in contract.schemas().values():
        for name, found in schema.get("$defs", {}).items():
            assert seen.setdefault(name, found) == found, name


def test_a_consumer_takes_what_later_versions_say() -> None:
    payload = records.status_record(STAMP, state="hibernating") | {"battery": 80}
    assert contract.published("status").is_valid(payload)
    assert not contract.published("status").is_valid(payload | {"v": 2})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"state": "hibernating"}, r"\$\.state: 'hibernating'"),
        ({"battery": 80}, "'battery' was unexpected"),
        ({"ts": "now"}, r"\$\.ts"),
        ({"session": None}, r"\$\.session"),
        ({"v": 2}, r"\$\.v: 1 was expected"),
    ],
)
def test_a_test_takes_nothing_that_is_not_written_down(change: dict[str, Any], fault: str) -> None:
    payload = records.status_record(STAMP, state="online")
    contract.check("status", records.to_json(payload).encode())
    with pytest.raises(AssertionError, match=fault):
        contract.check("status", records.to_json(payload | change).encode())


def test_a_key_deep_inside_is_looked_at_too() -> None:
    payload = RECORDS["sms/received"] | SEQ
    payload["part"] = payload["part"] | {"colour": "red"}
    with pytest.raises(AssertionError, match="sms/received"):
        contract.check("sms/received", records.to_json(payload).encode())


@pytest.mark.parametrize("payload", [b"{", b"\xff", b'{"v":NaN}', b"7"])
def test_what_is_no_json_object_is_no_payload(payload: bytes) -> None:
    with pytest.raises(AssertionError, match="status"):
        contract.check("status", payload)


def test_a_topic_of_its_own_that_is_not_written_down() -> None:
    with pytest.raises(AssertionError, match="no such topic"):
        contract.check("event/weather", b"{}")


@pytest.mark.parametrize(
    ("below", "payload", "topic"),
    [
        ("at/request/bob", b"{", None),
        ("at/cancel", b"{", None),
        ("at/request", b"", None),
        ("status", b"", None),
        ("reply/x", b'{"rid":"r"}', "at/response"),
        ("at/response/bob", b'{"rid":"r"}', "at/response"),
        ("noise", b"[]", None),
        ("noise", b"AT", None),
        ("module/state", b"{}", "module/state"),
    ],
)
def test_whose_schema_a_message_is_held_to(below: str, payload: bytes, topic: str | None) -> None:
    assert contract.topic_of(below, payload) == topic
    if topic is None:
        contract.check(below, payload)


# Words and limits.


def test_the_words_of_states_reasons_and_doors() -> None:
    ends = values(End)
    assert words("at/response", "state") == {"accepted", "running"} | ends
    assert words("event/response", "state") == ends
    # What ends before it is accepted never had a turn, so these four alone.
    assert words("event/command", "state") == {"accepted", "rejected", "expired", "cancelled"}
    for topic in ("at/response", "event/command", "event/response"):
        assert words(topic, "reason") == values(Reason)
        assert words(topic, "door") == values(Door)
    assert words("event/session", "door") == values(Door)
    assert words("module/state", "state") == values(State)
    assert words("status", "state") == {"online", "offline"}


def test_the_limits_of_a_request() -> None:
    properties = contract.schemas()["at/request"]["properties"]
    assert (properties["timeout_ms"]["minimum"], properties["timeout_ms"]["maximum"]) == ask.TIMEOUT_RANGE_MS
    assert properties["timeout_ms"]["default"] == ask.TIMEOUT_DEFAULT * 1000
    assert properties["id"]["maxLength"] == ask.ID_MAX
    assert f"{ask.PAYLOAD_MAX:,} octets" in contract.schemas()["at/request"]["description"]
    assert f"{LINE_MAX:,} characters" in properties["cmd"]["description"]
    assert properties["body"]["maxLength"] == ask.BODY_MAX
    assert f"{ask.BODY_MAX:,} octets" in properties["body"]["description"]
    assert properties["body_b64"]["anyOf"][1]["allOf"][1]["maxLength"] == len(base64.b64encode(bytes(ask.BODY_MAX)))
    assert properties["instance"]["enum"] == [*range(1, INSTANCES + 1), None]
    assert contract.schemas()["at/cancel"]["properties"]["id"]["maxLength"] == ask.ID_MAX
    lines = contract.schemas()["at/response"]["properties"]["truncated"]["description"]
    assert f"{records.LINES_MAX:,} characters" in lines


def test_the_version_is_one() -> None:
    for topic in PUBLISHED:
        assert contract.schemas()[topic]["properties"]["v"]["const"] == records.VERSION
    for topic in contract.ASKED:
        assert contract.schemas()[topic]["properties"]["v"]["enum"] == [records.VERSION, None]
    assert contract.schemas()["info"]["properties"]["contract"]["const"] == records.VERSION


# Every key that is said, and every key that is written down.

REQUEST: Final[dict[str, Any]] = {"rid": "r1", "correlation": "9f0c", "door": "mqtt", "peer": "who", "cmd": "AT+COPS?"}
RECORDS: Final[dict[str, dict[str, Any]]] = {
    "at/response": records.answer_record(records.request_record(STAMP, **REQUEST, state="ok"), "why"),
    "event/command": records.request_record(STAMP, **REQUEST, state="accepted"),
    "event/response": records.request_record(STAMP, **REQUEST, state="ok"),
    "event/session": records.session_record(STAMP, door="sms", peer="+39", what="answer cut", rid="r1"),
    "status": records.status_record(STAMP, state="online"),
    "urc": records.urc_record(STAMP, ("+CMTI: 1",)),
    "metrics": records.metrics_record(
        STAMP,
        uptime_s=1,
        run_s=2,
        cpu_s=0.5,
        memory_kib=36000,
        running=1,
        waiting=0,
        requests={member.value: 1 for member in Door},
        ended={member.value: 1 for member in End},
        outbox=None,
        spool_bytes=None,
        aside=None,
        dropped=None,
        missed=0,
        connects=1,
        set_ups=1,
        kept_out=0,
        audit_head=f"812:{'0' * 64}",
    ),
    "sms/received": records.received_record(
        STAMP, peer="+39", sent=None, text=None, raw=b"\0", part=(17, 3, 2), withheld=False
    ),
}
"""Every record that records.py shapes. The keys of the others are those of the rooms that know the facts."""
UNNUMBERED: Final = {"status", "urc", "metrics"}
"""These do not come from the outbox."""


@pytest.mark.parametrize("topic", sorted(RECORDS))
def test_a_record_has_the_keys_that_are_written_down_and_no_others(topic: str) -> None:
    keys = set(RECORDS[topic]) | (set() if topic in UNNUMBERED else {"seq"})
    assert keys == set(contract.schemas()[topic]["properties"])
    contract.check(topic, records.to_json(RECORDS[topic] | (SEQ if "seq" in keys else {})).encode())


def test_the_nodes_that_tests_play_keep_the_contract() -> None:
    answered = nodes.answer("box", {"id": "1", "cmd": "AT"})
    contract.check("at/response", json.dumps(answered).encode())
    contract.check("status", json.dumps(nodes.record("box", state="online", reason=None)).encode())


text = st.text(st.characters(codec="utf-8"), max_size=40)
line = st.text(st.characters(max_codepoint=255), max_size=40)
whole = st.integers(min_value=0, max_value=2**40)


outcomes = st.fixed_dictionaries(
    {
        "correlation": st.none() | text,
        "door": st.sampled_from(Door).map(lambda member: member.value),
        "peer": text,
        "cmd": text,
        "state": st.sampled_from(End).map(lambda member: member.value),
        "reason": st.none() | st.sampled_from(Reason).map(lambda member: member.value),
        "final": st.none() | text,
        "lines": st.lists(line, max_size=4).map(tuple),
        "truncated": st.booleans(),
        "queued_ms": whole,
        "duration_ms": whole,
        "detail": text,
    }
)


@given(outcomes)
def test_every_outcome_of_every_request_is_as_written_down(outcome: dict[str, Any]) -> None:
    detail = outcome.pop("detail")
    record = records.request_record(STAMP, rid="r1", **outcome) | SEQ
    contract.check("event/response", records.to_json(record).encode())
    contract.check("at/response", records.to_json(records.answer_record(record, detail)).encode())


@given(peer=text, sent=st.none() | st.just(STAMP.ts), body=st.none() | text, raw=st.none() | st.binary(max_size=40))
def test_every_message_is_as_written_down(peer: str, sent: str | None, body: str | None, raw: bytes | None) -> None:
    payload = records.received_record(STAMP, peer=peer, sent=sent, text=body, raw=raw, part=None, withheld=False)
    contract.check("sms/received", records.to_json(payload | SEQ).encode())


# What is asked.

ASKED: Final = Draft202012Validator(contract.schemas()["at/request"])
whole_numbers = st.integers(min_value=-(2**63), max_value=2**63)
printable = st.text(st.characters(codec="utf-8"), max_size=20)
moments = st.datetimes(timezones=st.sampled_from([timezone.utc, timezone(timedelta(hours=-3, minutes=-30))]))  # noqa: UP017
RIGHT: Final[dict[str, st.SearchStrategy[Any]]] = {
    "v": st.just(1),
    "id": st.text(st.characters(codec="utf-8"), min_size=1, max_size=128),
    "cmd": st.sampled_from(["AT", "HAT+CSQ", "at+cops?", "", "x"]),
    "timeout_ms": st.integers(min_value=1000, max_value=3_600_000),
    "expires": moments.map(lambda moment: moment.isoformat(timespec="milliseconds")),
    "body": printable,
    "body_b64": st.binary(max_size=40).map(lambda octets: base64.b64encode(octets).decode()),
    "instance": st.integers(min_value=1, max_value=3),
    "reply": st.booleans(),
    "reply_to": printable,
}
WRONG: Final = st.one_of(
    st.booleans(),
    whole_numbers,
    st.sampled_from([999, 3_600_001, 0, 4, 0.5, 1e300, "AQ", "AR==", "=", "", "a" * 129, "2026-11-22"]),
    st.sampled_from(["2026-11-22T08:40:00", "2026-13-22T08:40:00Z", "soon", "2026-11-22T08:40:00+0100x"]),
    printable,
    st.lists(whole_numbers, max_size=2),
    st.dictionaries(st.sampled_from(["a", "cmd"]), whole_numbers, max_size=2),
)


def is_taken(payload: bytes) -> bool:
    try:
        ask.parse_ask(payload)
    except ask.AskRefused:
        return False
    return True


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """What the schema takes."""
    keys = draw(st.sets(st.sampled_from(sorted(RIGHT)))) | {"cmd"}
    if {"body", "body_b64"} <= keys:
        keys.discard(draw(st.sampled_from(["body", "body_b64"])))
    nulls = draw(st.sets(st.sampled_from(sorted(RIGHT.keys() - {"cmd"}))))
    return {key: None if key in nulls else draw(RIGHT[key]) for key in sorted(keys)} | dict.fromkeys(nulls - keys)


@given(requests())
def test_what_the_schema_takes_is_taken(request: dict[str, Any]) -> None:
    assert ASKED.is_valid(request)
    assert is_taken(json.dumps(request).encode())
    assert is_taken(json.dumps(request, ensure_ascii=False).encode())


@given(requests(), st.sampled_from([*sorted(RIGHT), "comand", "V"]), WRONG)
def test_what_the_schema_refuses_is_refused(request: dict[str, Any], key: str, value: Any) -> None:  # noqa: ANN401 - JSON
    request[key] = value
    is_moment = "expires" not in request or request["expires"] is None or MOMENTS.fullmatch(str(request["expires"]))
    if ASKED.is_valid(request):
        # A pattern can't tell that there is no 13th month.
        assert is_taken(json.dumps(request).encode()) or request["expires"] == "2026-13-22T08:40:00Z"
    elif is_moment or key != "expires":
        assert not is_taken(json.dumps(request).encode())


MOMENTS: Final = re.compile(contract.schemas()["at/request"]["properties"]["expires"]["pattern"])


@given(requests())
def test_a_request_without_a_command_is_refused(request: dict[str, Any]) -> None:
    del request["cmd"]
    assert not ASKED.is_valid(request)
    assert not is_taken(json.dumps(request).encode())


@given(st.none() | printable, WRONG)
def test_a_cancellation(id_: str | None, value: Any) -> None:  # noqa: ANN401 - JSON
    schema = Draft202012Validator(contract.schemas()["at/cancel"])
    for given_ in ({"id": id_}, {"id": value}, {"v": value, "id": "x"}, {"id": "x", "cmd": value}, {}):
        try:
            ask.parse_cancel(json.dumps(given_).encode())
        except ask.AskRefused:
            assert not schema.is_valid(given_), given_
        else:
            assert schema.is_valid(given_), given_


# The AsyncAPI document.


def test_every_reference_of_the_asyncapi_document_resolves() -> None:
    for node in everything(ASYNCAPI):
        if "$ref" not in node:
            continue
        if node["$ref"].startswith("./"):
            assert (contract.FOLDER / node["$ref"]).is_file()
        else:
            assert resolved(ASYNCAPI, node["$ref"]) is not None


def test_the_asyncapi_document_has_what_it_must_have_and_nothing_idle() -> None:
    """AsyncAPI 3.0.0: what its own schema requires, and what it cannot tell."""
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(ASYNCAPI["info"])
    for server in ASYNCAPI["servers"].values():
        assert {"host", "protocol"} <= set(server)
        assert set(re.findall(r"{(\w+)}", server["host"])) == set(server["variables"])
    used = set()
    for operation in ASYNCAPI["operations"].values():
        assert operation["action"] in {"send", "receive"}
        channel = operation["channel"]["$ref"]
        used |= {channel} | ({operation["reply"]["channel"]["$ref"]} if "reply" in operation else set())
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{channel}/messages/")
    assert used == {f"#/channels/{name}" for name in ASYNCAPI["channels"]}
    spoken = {one["$ref"] for channel in ASYNCAPI["channels"].values() for one in channel["messages"].values()}
    assert spoken == {f"#/components/messages/{name}" for name in ASYNCAPI["components"]["messages"]}
    for channel in ASYNCAPI["channels"].values():
        assert set(re.findall(r"{(\w+)}", channel["address"] or "")) == set(channel.get("parameters", ()))


@pytest.mark.skipif(
    not OFFICIAL.is_file(), reason="packaging/bootstrap test gets AsyncAPI's schemas where there is npm"
)
def test_the_asyncapi_document_is_one_by_the_official_schema() -> None:
    official = Draft7Validator(json.loads(OFFICIAL.read_text(encoding="utf-8")))
    assert [f"{fault.json_path}: {fault.message[:300]}" for fault in official.iter_errors(ASYNCAPI)] == []
    broken = json.loads(json.dumps(ASYNCAPI))
    broken["operations"]["sendUrc"]["bindings"]["mqtt"]["qos"] = 7
    assert not official.is_valid(broken)


def test_every_schema_is_a_message_of_the_asyncapi_document() -> None:
    named = {
        message["payload"]["schema"]["$ref"]
        for message in ASYNCAPI["components"]["messages"].values()
        if "schema" in message["payload"]
    }
    assert named == {f"./{topic.replace('/', '-')}.json" for topic in TOPICS}


def test_its_examples_are_right() -> None:
    messages = ASYNCAPI["components"]["messages"]
    for example in messages["request"]["examples"]:
        assert ask.parse_ask(json.dumps(example["payload"]).encode()).cmd.startswith("AT")
    for example in messages["commandLine"]["examples"]:
        assert ask.parse_ask(example["payload"].encode()).cmd == example["payload"]
    for example in messages["cancellation"]["examples"]:
        assert ask.parse_cancel(json.dumps(example["payload"]).encode()) == example["payload"]["id"]


def test_the_user_properties_are_those_that_are_sent() -> None:
    for topic in PUBLISHED:
        (message,) = (one for one in ASYNCAPI["components"]["messages"].values() if one["name"] == name_of(topic))
        sent = records.properties(RECORDS[topic]) if "seq" in contract.schemas()[topic]["properties"] else {}
        assert set(message.get("headers", {}).get("required", ())) == set(sent), topic


def name_of(topic: str) -> str:
    first, *others = re.split("[/-]", topic)
    return first + "".join(word.title() for word in others)


def operations(action: str) -> Mapping[str, Mapping[str, Any]]:
    """The operations by the topic below the node's prefix."""
    return {
        resolved(ASYNCAPI, one["channel"]["$ref"])["address"].removeprefix(BASE): one
        for one in ASYNCAPI["operations"].values()
        if one["action"] == action
    }


def test_the_topics_that_are_taken_are_those_subscribed_to() -> None:
    taken = {re.sub(r"{\w+}", "+", topic) for topic in operations("receive")}
    assert taken == set(door.SUBSCRIPTIONS)
    assert all(one["bindings"]["mqtt"]["qos"] == 1 for one in operations("receive").values())


def test_the_topics_that_are_published_are_those_that_no_answer_may_go_to() -> None:
    assert sorted(operations("send")) == PUBLISHED
    assert {topic.partition("/")[0] for topic in [*operations("send"), *operations("receive")]} == door.OWN_LEVELS


def test_the_connection_is_the_codes() -> None:
    usual = Mqtt()
    ports = {name: server["variables"]["port"]["default"] for name, server in ASYNCAPI["servers"].items()}
    assert ports == {"clear": str(usual.port), "tls": "8883"}
    for server in ASYNCAPI["servers"].values():
        said = server["bindings"]["mqtt"]
        assert (said["keepAlive"], said["sessionExpiryInterval"]) == (usual.keepalive, usual.session_expiry)
        assert said["maximumPacketSize"] == client.PACKET_MAX
        assert server["protocolVersion"].startswith(usual.protocol)
        will = json.loads(said["lastWill"]["message"])
        assert will.keys() == RECORDS["status"].keys()
        assert (will["state"], said["lastWill"]["qos"], said["lastWill"]["retain"]) == ("offline", 1, True)
    asked = ASYNCAPI["components"]["messages"]["request"]["bindings"]["mqtt"]
    assert asked["responseTopic"]["maxLength"] == asking.REPLY_TO_MAX
    assert asked["correlationData"]["maxLength"] == asking.CORRELATION_MAX


# The page.

PAGE: Final = (contract.FOLDER.parent / "mqtt.md").read_text(encoding="utf-8")


def rows(head: str) -> list[list[str]]:
    """The cells of the rows of the page's table whose head begins so, the head aside."""
    lines = PAGE.split(f"\n| {head} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def test_the_page_lists_every_topic_as_it_is() -> None:
    listed = {}
    for topics, way, qos, retained, *_ in rows("topic"):
        for topic in re.findall(r"`([^`]+)`", topics):
            listed[topic.replace("<who>", "{who}")] = (way, int(qos), retained)
    wanted = {}
    for topic, one in operations("send").items():
        bound = one["bindings"]["mqtt"]
        wanted[topic] = ("out", bound["qos"], "yes" if bound["retain"] else "no")
    for topic, one in operations("receive").items():
        wanted[topic] = ("in", one["bindings"]["mqtt"]["qos"], "refused")
    assert listed == wanted


def test_the_page_explains_every_key_of_a_request() -> None:
    listed = {key for row in rows("key") for key in re.findall(r"`(\w+)`", row[0])}
    assert listed == set(contract.schemas()["at/request"]["properties"])


def test_the_page_explains_every_state_and_every_reason() -> None:
    assert [row[0].strip("`") for row in rows("`state`")] == ["accepted", "running", *(end.value for end in End)]
    assert [row[0].strip("`") for row in rows("`reason`")] == [reason.value for reason in Reason]


def test_the_events_that_the_page_names_are_there() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in (contract.FOLDER.parents[1] / "atrund").rglob("*.py"))
    named = [word for row in rows("`door` | `event`") for word in re.findall(r"`([^`]+)`", row[1])]
    assert len(named) > 20
    assert [word for word in named if not re.search(rf'"{word}\b', source)] == []


def test_the_page_names_every_figure() -> None:
    said = PAGE.split("\n## Figures\n", 1)[1]
    for key in contract.schemas()["metrics"]["properties"].keys() - RECORDS["status"].keys():
        shown = re.sub("^(requests|ended)_.*", r"\1_", key)
        assert re.search(rf"`{shown}\w*`", said), key


def test_the_answer_that_the_page_shows_is_right() -> None:
    shown = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert len(shown) == 1
    contract.check("at/response", shown[0].encode())


def test_the_limits_that_the_page_tells() -> None:
    said = PAGE.split("\n## Limits\n", 1)[1].split("\n## ", 1)[0]
    for words_ in (
        f"{LINE_MAX:,} characters",
        f"{ask.PAYLOAD_MAX:,} octets; body {ask.BODY_MAX:,}",
        f"{records.LINES_MAX:,} characters of lines",
        f"{asking.REPLY_TO_MAX} characters, {asking.CORRELATION_MAX} octets, {ask.ID_MAX} characters",
        f"{connection.RECEIVE_MAX} (Receive Maximum)",
        f"{Queue().depth} of each door",
    ):
        assert words_ in said


def test_the_options_that_the_page_names_are_there() -> None:
    for section, keys in ((Mqtt, r"mqtt\.(\w+)"), (Privacy, r"privacy\.(\w+)"), (Queue, r"queue\.(\w+)")):
        named = set(re.findall(f"`{keys}", PAGE))
        assert named
        assert named <= {option.name for option in fields(section)}


def test_the_configurations_of_the_page_are_right(tmp_path: Path) -> None:
    (tmp_path / "mqtt-password").write_text("correct horse", encoding="ascii")
    (tmp_path / "mqtt-password").chmod(0o600)
    Authority(tmp_path, "broker-ca").issue("gateway-17")
    shown = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert len(shown) == 2
    for text_ in shown:
        file = tmp_path / "atrund.toml"
        file.write_text(text_, encoding="utf-8")
        assert load(file, hostname="h", machine_id="0" * 32).mqtt.enabled


def test_what_the_page_points_to_is_there() -> None:
    docs = contract.FOLDER.parent
    pointed = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert pointed
    assert [name for name in pointed if not (docs / name).exists()] == []
    titles = re.findall("^#+ (.*)", PAGE, re.MULTILINE)
    headings = {re.sub(r"[^a-z -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings
