# SPDX-License-Identifier: Apache-2.0
"""The module's ports on USB: which compositions there are, how a port is named, what sysfs shows of it."""
