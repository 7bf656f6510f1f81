# SPDX-License-Identifier: Apache-2.0
"""The AT RUN rules, without I/O: requests, policy, messages, sessions, firewall."""
