# SPDX-License-Identifier: Apache-2.0
"""Makes client mode of the TCP door, and what the TCP door waits for, from the configuration."""

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Final

from atrund import config, making
from atrund.atrun.family.forms import Service
from atrund.bearer import Bearer

if TYPE_CHECKING:  # few call, or wait for anything
    from atrund.doors.certificates import Certificates
    from atrund.doors.client import ClientDoor
    from atrund.module.channel import Channel

TOKEN_TIMEOUT: Final = 60.0
"""Seconds for the far end's token (TCP-13)."""


def client_door(
    configured: Callable[[], config.Tcp], means: making.Means, on_change: Callable[[], None]
) -> "ClientDoor":
    """Make client mode of the TCP door."""
    from atrund.doors.client import ClientDoor, ClientRules  # noqa: PLC0415 - few call
    from atrund.doors.dialling import Far, LookUps, open_call  # noqa: PLC0415 - as above

    @cache
    def certificates() -> "Certificates":
        from atrund.config.tls import client_files  # noqa: PLC0415 - few speak TLS
        from atrund.doors.certificates import Certificates  # noqa: PLC0415 - as above
        from atrund.tls import client_context  # noqa: PLC0415 - as above

        return Certificates(lambda: client_files(configured().client.tls), client_context, "tcp.client.tls")

    def rules() -> ClientRules:
        given, settings = configured(), means.own.settings.tcp
        client = settings.client
        far = Far(
            client.host,
            client.port,
            settings.own_socket.connect_timeout,
            interface=given.bearer.interface,
            trusted=given.trusted_interfaces,
            insecure=given.insecure,
            tls=given.client.tls.enabled,
            server_name=given.client.tls.server_name,
        )
        return ClientRules(
            users=(),
            login_timeout=TOKEN_TIMEOUT,
            idle_timeout=settings.own_socket.idle_timeout,
            timeout=settings.timeout,
            sequence=settings.sequence,
            instance=settings.instance,
            dialled=True,
            token="" if given.client.token is None else given.client.token.reveal(),
            packets=making.packets(settings.own_socket),
            far=far,
            retries=client.retries,
            retry_delay=client.retry_delay,
            redial=given.client.redial,
        )

    return ClientDoor(
        rules,
        means.of_session,
        ledger=means.ledger,
        mirror=means.mirror,
        say=means.say_of_tcp(Service.TCP_CLIENT),
        on_change=on_change,
        open_=partial(open_call, look_up=LookUps(), certificates=certificates),
    )


def bearer(given: config.TcpBearer, channel: "Callable[[], Channel | None]") -> Bearer:
    """Make what the TCP door waits for; `channel` gives the module's first port."""
    if given.interface:
        from atrund.bearer.interface import InterfaceBearer  # noqa: PLC0415 - few wait for one

        return InterfaceBearer(given.interface)
    if given.context:
        from atrund.bearer.context import ContextBearer  # noqa: PLC0415 - as above

        return ContextBearer(given.context, activate=given.activate, channel=channel)
    return Bearer()
