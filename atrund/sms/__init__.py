# SPDX-License-Identifier: Apache-2.0
"""The short message: alphabets, PDUs, the ATRUN digest, and cutting an answer into parts. Pure: no I/O, no clock."""
