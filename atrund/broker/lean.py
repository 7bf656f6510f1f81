# SPDX-License-Identifier: Apache-2.0
"""Spares a router what paho imports and never uses here; imported before paho.

paho asks urllib.request for a proxy, where PySocks is there to reach one: with it come http and email, some 3 MiB of
memory and a tenth of the start. Where PySocks is not there, nothing is ever asked, and a stand-in does.
"""

import sys
import types
import urllib
from importlib.util import find_spec

if find_spec("socks") is None and "urllib.request" not in sys.modules:
    sys.modules["urllib.request"] = types.ModuleType("urllib.request")
    # paho finds it as an attribute of the package, once it has imported it by name.
    setattr(urllib, "request", sys.modules["urllib.request"])  # noqa: B010 - to a type checker it is another module
    import paho.mqtt.client  # noqa: F401 - now, while the stand-in is there

    # Whoever else imports it gets the real one, and paho with them.
    del sys.modules["urllib.request"]
