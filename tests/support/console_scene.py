"""A store with something to see: four flows, one of each standing, with real deliveries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from auditstore import EventRepository, credentials, streams
from auditstore.demo import flow_engine
from auditstore.demo.flow_engine import FlowEngine
from auditstore.sql import progress
from auditstore.streams import Limits, NewStream
from auditstore.vault import Vault, new_key
from support.console_server import PEOPLE, FewPeople, serving_console
from support.eventually import eventually
from support.export_command import running_exporter
from support.strict_s3 import StrictS3

AUTO = "65f0c0ffee0000000000a001"
HOME = "65f0c0ffee0000000000b002"
SOLAR = "65f0c0ffee0000000000c003"
MORTGAGE = "65f0c0ffee0000000000d004"
_ACTOR = "ada (console)"
_DAY_S = 86_400
_EVERYTHING: Any = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}


@dataclass(frozen=True, slots=True)
class Scene:
    """The console at ``url``, with an event and a test lead of the flow that does well."""

    url: str
    event_id: str
    lead_id: str


@contextmanager
def console_scene(engine: Engine, database_url: str, server: StrictS3) -> Iterator[Scene]:
    """Flows that stream, are blocked, are not streamed and are switched off; an exporter runs."""
    key = new_key()
    environment = {"AUDITSTORE_DATABASE_URL": database_url, "AUDITSTORE_SECRET_KEYS": key}
    _past(engine, AUTO, "Auto insurance", [9, 14, 12, 17, 6, 4, 15, 19, 22, 18, 21, 8, 5])
    _past(engine, HOME, "Home insurance", [4, 6, 5, 0, 0, 7, 9, 8, 11, 7, 6, 2, 1])
    _past(engine, SOLAR, "Solar quotes", [0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 2, 6, 5])
    _past(engine, MORTGAGE, "Mortgage refinance", [5, 5, 4, 6, 3, 0, 0, 0, 0, 0, 0, 0, 0])
    stream_id = _streams(engine, Vault([key]), server)
    with running_exporter(environment):
        for seed in range(14):
            _now(engine, AUTO, "Auto insurance", seed)
            _delivered(engine, stream_id)
        _now(engine, HOME, "Home insurance", 1)
        eventually(lambda: _state(engine, HOME) == "blocked", within=30)
        lead = flow_engine.test_lead(AUTO, time.time, flow_name="Auto insurance")
        with engine.begin() as connection:
            EventRepository().append(connection, lead.events, flow_id=AUTO)
        _delivered(engine, stream_id)
        with engine.connect() as connection:
            event = list(EventRepository().lead(connection, lead.lead_id))[-2].event
        with serving_console(engine, Vault([key]), FewPeople(*PEOPLE)) as url:
            yield Scene(url, event.event_id, lead.lead_id)


def _streams(engine: Engine, vault: Vault, server: StrictS3) -> int:
    bucket = server.bucket()
    good, bad = server.user(_EVERYTHING), server.user({**_EVERYTHING, "Statement": [
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}]})  # fmt: skip
    with engine.begin() as connection:
        for name, user in (("auto-bucket", good), ("home-bucket", bad)):
            credentials.add(
                connection, vault, name=name, kind="s3", secret=user.secret, actor=_ACTOR
            )
        ids = {each.name: each.credential_id for each in credentials.find(connection)}
        added = [
            streams.add(
                connection,
                NewStream(
                    flow_id, f"s3://{bucket}/{place}", endpoint_url=server.url, region="us-east-1",
                    credential_id=ids[name], limits=Limits(max_delay=0.2),
                ),
                actor=_ACTOR,
            )
            for flow_id, place, name in (
                (AUTO, "leads/auto", "auto-bucket"), (HOME, "leads/home", "home-bucket"),
                (MORTGAGE, "leads/mortgage", "auto-bucket"),
            )
        ]  # fmt: skip
        streams.disable(connection, added[2].stream_id, actor=_ACTOR)
        streams.change(connection, added[0].stream_id, {"max_delay": 0.4}, actor="olaf (console)")
    return added[0].stream_id


def _past(engine: Engine, flow_id: str, name: str, leads: list[int]) -> None:
    """So many leads on each of the days before today; appended now, as an import would."""
    today = time.time() // _DAY_S * _DAY_S
    for number, count in enumerate(leads):
        at = today - (len(leads) - number) * _DAY_S + 43_200
        flow = FlowEngine(flow_id=flow_id, flow_name=name, seed=number, clock=lambda at=at: at)
        events = [event for _ in range(count) for event in flow.handle().events]
        if events:
            with engine.begin() as connection:
                EventRepository().append(connection, events)


def _now(engine: Engine, flow_id: str, name: str, seed: int) -> None:
    flow = FlowEngine(flow_id=flow_id, flow_name=name, seed=1000 + seed)
    with engine.begin() as connection:
        EventRepository().append(
            connection, [event for _ in range(1 + seed % 4) for event in flow.handle().events]
        )


def _delivered(engine: Engine, stream_id: int) -> None:
    def look() -> bool:
        with engine.connect() as connection:
            stream = streams.get(connection, stream_id)
            newest = EventRepository().find(connection, flow_id=stream.flow_id, order="desc")
            highest = max(each.position for each in newest)
            return bool(
                stream.delivered_position >= highest
                and not progress.undelivered(connection, stream_id).files
            )

    eventually(look, within=30, what="everything is delivered")


def _state(engine: Engine, flow_id: str) -> str:
    with engine.connect() as connection:
        return streams.find(connection, flow_id=flow_id)[0].shown_state
