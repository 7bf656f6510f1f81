# SPDX-License-Identifier: Apache-2.0
"""How Home Assistant is told of the module: MQTT device discovery (Home Assistant 2024.11 and later).

Source: home-assistant.io, integrations "MQTT" (Device discovery payload), "MQTT sensor" and "MQTT binary sensor".
A template that gives `None` makes the value unknown there, so what is null in `module/state` needs no words.
"""

from typing import Any, Final


def discovery(
    prefix: str, base: str, *, name: str, version: str, model: str = "", firmware: str = ""
) -> tuple[str, dict[str, Any]]:
    """Return topic and payload of the retained configuration; an empty payload there takes it back.

    `prefix` is Home Assistant's own, `base` is `<prefix>/<node>/` of the daemon's topics, `name` what the device is
    called at first; `model` and `firmware` are left out while they are not known.
    """
    own = identifier(base.rstrip("/"))
    device = {"identifiers": [own], "name": name, "manufacturer": "Telit", "model": model, "sw_version": firmware}
    state = f"{base}module/state"
    return f"{prefix}/device/{own}/config", {
        "device": {key: value for key, value in device.items() if value},
        "origin": {"name": "atrund", "sw_version": version},
        "availability_topic": f"{base}status",
        "availability_template": "{{ value_json.state }}",
        "state_topic": state,
        "qos": 1,
        "components": {
            key: {"unique_id": f"{own}_{key}", **_with_topic(component, state)}
            for key, component in _COMPONENTS.items()
        },
    }


def identifier(path: str) -> str:
    """Return what stands for a node in names that take A-Z a-z 0-9 - and _ alone: never the same for two.

    A level's end becomes "__", every other character _ and its octets in hexadecimal.
    """
    return "".join(map(_plain, path))


def _plain(character: str) -> str:
    if character == "-" or (character.isascii() and character.isalnum()):
        return character
    return "__" if character == "/" else "".join(f"_{octet:02x}" for octet in character.encode())


def _with_topic(component: dict[str, Any], state: str) -> dict[str, Any]:
    """Attributes have no topic of their own, and no shared one either."""
    return component | ({"json_attributes_topic": state} if "json_attributes_template" in component else {})


_COMPONENTS: Final[dict[str, dict[str, Any]]] = {
    "connectivity": {
        "platform": "binary_sensor",
        "name": "Connectivity",
        "device_class": "connectivity",
        "value_template": "{{ 'ON' if value_json.state == 'ready' else 'OFF' }}",
    },
    "state": {
        "platform": "sensor",
        "name": "State",
        "entity_category": "diagnostic",
        "value_template": "{{ value_json.state }}",
        "json_attributes_template": "{{ {'detail': value_json.detail, 'sim': value_json.sim} | tojson }}",
    },
    "registration": {
        "platform": "sensor",
        "name": "Registration",
        "entity_category": "diagnostic",
        "value_template": "{{ value_json.registration or None }}",
    },
    "operator": {
        "platform": "sensor",
        "name": "Operator",
        "entity_category": "diagnostic",
        "value_template": "{{ value_json.operator }}",
    },
    "technology": {
        "platform": "sensor",
        "name": "Technology",
        "entity_category": "diagnostic",
        "value_template": "{{ value_json.technology }}",
    },
    "signal": {
        "platform": "sensor",
        "name": "Signal",
        "entity_category": "diagnostic",
        "device_class": "signal_strength",
        "state_class": "measurement",
        "unit_of_measurement": "dBm",
        "value_template": "{{ value_json.rssi_dbm }}",
    },
    "rsrp": {
        "platform": "sensor",
        "name": "RSRP",
        "enabled_by_default": False,
        "entity_category": "diagnostic",
        "device_class": "signal_strength",
        "state_class": "measurement",
        "unit_of_measurement": "dBm",
        "value_template": "{{ value_json.rsrp_dbm }}",
    },
    "sms_store": {
        "platform": "sensor",
        "name": "SMS store",
        "state_class": "measurement",
        "unit_of_measurement": "%",
        "value_template": "{{ (100 * value_json.sms_used / value_json.sms_total) | round | int"
        " if value_json.sms_total and value_json.sms_used is not none else None }}",
        "json_attributes_template": "{{ {'used': value_json.sms_used, 'total': value_json.sms_total} | tojson }}",
    },
}
"""The entities. Those without a category are what the device is for, in Home Assistant's sense."""
