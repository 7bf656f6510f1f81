# SPDX-License-Identifier: Apache-2.0
"""A simulated Telit module and its network, with faults: for the demo, the tests, and users without hardware."""
