"""A console at work on a database of its own: served, with people, leads and an exporter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from sqlalchemy import Engine

from auditstore import EventRepository
from auditstore.demo.flow_engine import FlowEngine
from auditstore.vault import Vault, new_key
from support.console_server import PASSWORD, PEOPLE, FewPeople, serving_console
from support.export_command import ExporterProcess, running_exporter

FLOW = "65f0c0ffee0000000000a001"
FLOW_NAME = "Reference flow"
NAME = "ada"
__all__ = ["FLOW", "FLOW_NAME", "NAME", "PASSWORD", "ConsoleSite", "running_site"]


class ConsoleSite:
    """The console at ``url``; whoever knows ``PASSWORD`` may come in as ``NAME``."""

    def __init__(self, url: str, engine: Engine, environment: dict[str, str]) -> None:
        self.url = url
        self._engine = engine
        self._environment = environment
        self.key = environment["AUDITSTORE_SECRET_KEYS"]

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
    """The console on this database, with a key for secrets."""
    key = new_key()
    environment = {"AUDITSTORE_DATABASE_URL": database_url, "AUDITSTORE_SECRET_KEYS": key}
    with serving_console(engine, Vault([key]), FewPeople(*PEOPLE)) as url:
        yield ConsoleSite(url, engine, environment)
