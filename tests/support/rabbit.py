# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ nodes of one machine, in one cluster, with MQTT 3.1.1 and a port mapper of their own; all on loopback."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.scenarios.players import Program, until
from tests.support.ports import free_port

HOMES: Final = Path("/usr/lib/rabbitmq/lib")
BOOT: Final = 120.0
"""Seconds for a node to start: twelve on an idle machine."""
ON_LOOPBACK: Final = "-kernel inet_dist_use_interface {127,0,0,1}"
MIRRORED: Final = '{"ha-mode":"all","ha-sync-mode":"automatic"}'


def tools() -> Path | None:
    """Where RabbitMQ's programs are, None where it isn't installed."""
    return next(HOMES.glob("rabbitmq_server-*/sbin"), None)


@dataclass
class Node:
    """One node; `port` is its MQTT listener."""

    name: str
    folder: Path
    environ: dict[str, str]
    port: int
    program: Program

    def control(self, *words: str) -> None:
        """Run `rabbitmqctl` on it."""
        command = [str(self._tool("rabbitmqctl")), "-q", *words]
        done = subprocess.run(
            command, env={**os.environ, **self.environ}, capture_output=True, text=True, timeout=BOOT, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def kill(self) -> None:
        """Kill it, and whatever it started."""
        if self.program.process.poll() is None:
            os.killpg(self.program.process.pid, signal.SIGKILL)
            self.program.wait()

    def wait(self) -> None:
        """Wait until it takes clients."""
        until(self._listens, f"{self.name}: {self.program.text[-2000:]}", BOOT)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            up = self.program.said("Server startup complete") is not None
            return up and probe.connect_ex(("127.0.0.1", self.port)) == 0

    @staticmethod
    def _tool(name: str) -> Path:
        folder = tools()
        assert folder is not None
        return folder / name


@contextmanager
def cluster(folder: Path, count: int) -> Iterator[list[Node]]:
    """Start so many nodes, ready to be used.

    With more than one, the queues of MQTT's sessions are mirrored: RabbitMQ 3.10 keeps a session on one node otherwise,
    and while that is down its client is let in nowhere.
    """
    mapper_port = free_port()
    common = {
        "HOME": str(folder),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(mapper_port),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ON_LOOPBACK,
        "RABBITMQ_CTL_ERL_ARGS": ON_LOOPBACK,
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
    }
    cookie = folder / ".erlang.cookie"
    cookie.write_text("ATRUNDTESTS")
    cookie.chmod(0o400)
    (folder / "plugins").write_text("[rabbitmq_mqtt].\n")
    with ExitStack() as stack:
        mapper = Program(["epmd", "-address", "127.0.0.1", "-port", str(mapper_port)], folder / "epmd.log")
        stack.callback(mapper.stop, signal.SIGKILL)
        nodes = [_start(folder, f"r{number}", common) for number in range(1, count + 1)]
        for node in nodes:
            stack.callback(node.kill)
        for node in nodes:
            node.wait()
        first, *others = nodes
        for node in others:
            for words in (["stop_app"], ["reset"], ["join_cluster", f"{first.name}@localhost"], ["start_app"]):
                node.control(*words)
            node.wait()
        if others:
            first.control("set_policy", "mirrored", "^mqtt-subscription-", MIRRORED, "--apply-to", "queues")
        yield nodes


def _start(folder: Path, name: str, common: dict[str, str]) -> Node:
    own = folder / name
    own.mkdir()
    port = free_port()
    (own / "rabbitmq.conf").write_text(
        f"listeners.tcp = none\nmqtt.listeners.tcp.1 = 127.0.0.1:{port}\nmqtt.allow_anonymous = true\n"
        "mqtt.tcp_listen_options.nodelay = true\nlog.console = true\nlog.console.level = info\n"
    )
    environ = {
        **common,
        "RABBITMQ_NODENAME": f"{name}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(own / "data"),
        "RABBITMQ_LOG_BASE": str(own / "log"),
        "RABBITMQ_CONFIG_FILE": str(own / "rabbitmq.conf"),
        "RABBITMQ_PID_FILE": str(own / "pid"),
    }
    program = Program([Node._tool("rabbitmq-server")], own / "out", environ)
    return Node(name, own, environ, port, program)
