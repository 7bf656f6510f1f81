# SPDX-License-Identifier: Apache-2.0
"""The module on its port: opening it, turns on it, what it says unasked, its set-up and its SMS store."""
