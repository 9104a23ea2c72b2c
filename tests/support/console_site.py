"""`auditstore serve` at work in a process of its own, with a person, leads and an exporter."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx
from sqlalchemy import Engine

from auditstore import EventRepository
from auditstore.demo.flow_engine import FlowEngine
from auditstore.vault import new_key
from support.commands import CommandLine, clean_environment
from support.eventually import eventually
from support.export_command import ExporterProcess, running_exporter

FLOW = "65f0c0ffee0000000000a001"
FLOW_NAME = "Reference flow"
NAME = "ada"
PASSWORD = "a password of five words"


class ConsoleSite:
    """The console at ``url``; whoever knows ``PASSWORD`` may come in as ``NAME``."""

    def __init__(self, url: str, engine: Engine, environment: dict[str, str]) -> None:
        self.url = url
        self._engine = engine
        self._environment = environment

    def append_leads(self, count: int, *, seed: int = 1) -> None:
        """Append the events of so many leads of the flow."""
        flow = FlowEngine(flow_id=FLOW, flow_name=FLOW_NAME, seed=seed)
        events = [event for _ in range(count) for event in flow.handle().events]
        with self._engine.begin() as connection:
            EventRepository().append(connection, events)

    def exporter(self) -> AbstractContextManager[ExporterProcess]:
        """`auditstore export run` in a process of its own."""
        return running_exporter(self._environment)


@contextmanager
def running_site(engine: Engine, database_url: str) -> Iterator[ConsoleSite]:
    """The console on this database, with a key for secrets and the first administrator."""
    environment = {"AUDITSTORE_DATABASE_URL": database_url, "AUDITSTORE_SECRET_KEYS": new_key()}
    CommandLine(environment).run(
        "user", "add", NAME, "--role", "administrator", stdin=f"{PASSWORD}\n"
    )
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "auditstore", "serve", "--port", str(port)],
        env=clean_environment() | environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: _answers(url, process), within=60, what="the console answering")
        yield ConsoleSite(url, engine, environment)
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "auditstore serve has ended"
    try:
        return httpx.get(f"{url}/login").status_code == 200
    except httpx.ConnectError:
        return False


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
