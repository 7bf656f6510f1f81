# SPDX-License-Identifier: Apache-2.0
"""The commands that the daemon answers itself (CMD-1), a module for each family, a row for each command."""
