# SPDX-License-Identifier: Apache-2.0
"""Everything at once, to try and to watch: a simulated module, a broker and the daemon (`python -m atrund.demo`)."""
