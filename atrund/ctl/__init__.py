# SPDX-License-Identifier: Apache-2.0
"""atrunctl: the command-line client. Plain blocking sockets and late imports, for its start-up is felt on a router."""
