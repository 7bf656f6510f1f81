# SPDX-License-Identifier: Apache-2.0
"""TLS to the broker: made anew for each connection, so that renewed files count from the next one on (MQ-1).

Rule of this file: it blocks, so it is called off the event loop; and only where there is TLS.
"""

import ssl
from typing import Any

from atrund import tls
from atrund.broker.dialling import Failure
from atrund.broker.settings import BrokerError, BrokerSettings


class Socket(ssl.SSLSocket):
    """Remembers what ended it: with TLS 1.3 a broker tells after the handshake that it does not take a certificate."""

    failure: ssl.SSLError | None = None

    def do_handshake(self, *given: Any) -> None:  # noqa: ANN401 - handed on as it is
        """Shake hands; paho leaves a socket open with which that failed."""
        try:
            super().do_handshake(*given)
        except BaseException:
            self.close()
            raise

    def recv(self, *given: Any) -> bytes:  # noqa: ANN401 - handed on as it is
        """Receive, as any socket."""
        try:
            return super().recv(*given)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self.failure = error
            raise


class Context:
    """As much of an `ssl.SSLContext` as paho uses, with the name that the certificate is for."""

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self.check_hostname = context.check_hostname
        self._context = context
        self._server_name = server_name

    def wrap_socket(
        self,
        sock: Any,  # noqa: ANN401 - a socket
        *,
        server_hostname: str | None = None,
        do_handshake_on_connect: bool = False,
    ) -> ssl.SSLSocket:
        """Wrap a connected socket."""
        return self._context.wrap_socket(
            sock,
            server_hostname=self._server_name or server_hostname,
            do_handshake_on_connect=do_handshake_on_connect,
        )


def make_context(settings: BrokerSettings) -> Any:  # noqa: ANN401 - paho asks for an SSLContext, and this stands in for one
    """Return how this broker is called, from its files as they are now. Raises `BrokerError`."""
    try:
        context = tls.client_context(tls.Files(settings.cert_file, settings.key_file, settings.ca_file))
    except tls.FileError as error:
        names = {"certificate": "mqtt.cert_file", "key": "mqtt.key_file", "ca": "mqtt.ca_file"}
        raise BrokerError(f"TLS: {names[error.option]}: {error.wrong}; {error.right}") from None
    if settings.alpn:
        context.set_alpn_protocols([settings.alpn])
    context.sslsocket_class = Socket
    return Context(context, settings.server_name)


def failed(error: OSError) -> BrokerError:
    """Return what a failed handshake means. What a busy broker may cut off as well passes by itself."""
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionResetError):
        return BrokerError(f"TLS: {tls.explain(error)}; perhaps it speaks no TLS at this port", Failure.AWAY)
    if "no application protocol" in str(error):  # Python 3.11 has no name for that alert
        right = "mqtt.alpn as its port has it"
        return BrokerError(f"TLS: it has not the application protocol that was asked for; {right}", Failure.TLS)
    return BrokerError(f"TLS: {tls.explain(error).removeprefix('TLS: ')}", Failure.TLS)
