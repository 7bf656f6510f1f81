# SPDX-License-Identifier: Apache-2.0
"""atrund: AT commands on the local Telit module for those who are allowed, by SMS, TCP and MQTT."""

__version__ = "0.1.0"
