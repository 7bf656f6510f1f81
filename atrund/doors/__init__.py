# SPDX-License-Identifier: Apache-2.0
"""The ways in. Each is small: the rules live in `atrun`, the path to the module in `runner`."""
