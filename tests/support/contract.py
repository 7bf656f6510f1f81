# SPDX-License-Identifier: Apache-2.0
"""The schemas of docs/contract: what is published is held to them more strictly than a consumer may be.

A consumer passes over unknown keys and takes unknown words for errors, so that both may grow. A test that sees one sees
something that is written down nowhere: it fails.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator

from atrund.doors.asking import OWN_LEVELS

FOLDER: Final = Path(__file__).parents[2] / "docs" / "contract"
ASYNCAPI: Final = FOLDER / "asyncapi.json"
ASKED: Final = ("at/request", "at/cancel")
"""Topics on which the daemon is asked; what stands there is the asker's."""
SHOWN_MAX: Final = 2000
"""Characters of a payload in a failure."""

Schema = dict[str, Any]


@functools.cache
def schemas() -> Mapping[str, Schema]:
    """The published schemas by the topic below the node's prefix."""
    files = sorted(path for path in FOLDER.glob("*.json") if path != ASYNCAPI)
    return {path.stem.replace("-", "/"): json.loads(path.read_text(encoding="utf-8")) for path in files}


@functools.cache
def published(topic: str) -> Draft202012Validator:
    """The validator that a consumer has."""
    return _compiled(schemas()[topic])


@functools.cache
def strict(topic: str) -> Draft202012Validator:
    """The validator of the tests: no key and no word that the schema does not name."""
    return _compiled(_closed(schemas()[topic]))


def topic_of(below: str, payload: bytes) -> str | None:
    """Return whose schema a message is held to; None for what asks, what clears, and what is none of the daemon's."""
    if not payload or below.startswith(ASKED):
        return None
    if below.partition("/")[0] in OWN_LEVELS and not below.startswith("at/response/"):
        return below
    # Anything else is an answer on a topic that its asker named, or nothing of the contract.
    try:
        given = json.loads(payload)
    except ValueError:
        return None
    return "at/response" if isinstance(given, dict) and "rid" in given else None


def check(below: str, payload: bytes) -> None:
    """Fail where a message below the node's prefix is not as the contract has it."""
    topic = topic_of(below, payload)
    if topic is None:
        return
    assert topic in schemas(), f"{below}: docs/contract has no such topic"
    try:
        given = json.loads(payload.decode("utf-8"), parse_constant=_no_constant)
    except ValueError as error:
        raise AssertionError(f"{below}: no JSON in UTF-8: {error}: {payload[:SHOWN_MAX]!r}") from None
    mistakes = [f"{fault.json_path}: {fault.message[:300]}" for fault in strict(topic).iter_errors(given)]
    assert not mistakes, f"{below}: not as docs/contract has it: {mistakes}: {payload[:SHOWN_MAX]!r}"


def _compiled(schema: Schema) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def _closed(schema: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {
        key: False if key == "later" else value if key == "not" else _closed(value) for key, value in schema.items()
    }
    return closed | ({"unevaluatedProperties": False} if isinstance(schema.get("properties"), dict) else {})


def _no_constant(name: str) -> None:
    raise ValueError(name)
