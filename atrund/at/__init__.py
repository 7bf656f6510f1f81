# SPDX-License-Identifier: Apache-2.0
"""The AT language, without I/O: command lines, result codes, bytes into lines, one command's life."""
