"""Reports kept in the database, append only, and read back only if they are what they were."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from auditstore import database
from auditstore.errors import DatabaseRefused, NotFound, ReportDamaged
from auditstore.reconciliation.document import About, canonical
from auditstore.reconciliation.scope import Level
from auditstore.sql import reconciliations as sql
from auditstore.sql import server
from auditstore.sql.reconciliations import KeptReport

_SCOPE: Final = ("level", "since", "until", "flow", "stream", "views")


@dataclass(frozen=True, slots=True)
class Read:
    """A kept report: its row, and its values with their hash, which was verified."""

    row: KeptReport
    values: dict[str, Any]


def about(
    connection: Connection,
    *,
    actor: str,
    level: Level,
    since: datetime | None = None,
    until: datetime | None = None,
    flow: str | None = None,
    stream: int | None = None,
    repair: str = "no",
    views: Mapping[str, Any] | None = None,
) -> About:
    """What a report that begins now says of itself; the arguments but ``actor`` are its scope."""
    return About(
        started_at=server.clock(connection),
        actor=actor,
        database_user=server.session_user(connection),
        versions={
            "auditstore": _version(),
            "schema": str(database.schema_revision(connection)),
            "server": server.full_version(connection),
        },
        scope={
            "level": level, "since": since, "until": until, "flow": flow, "stream": stream,
            "repair": repair, "views": views,
        },
    )  # fmt: skip


def _version() -> str:
    try:
        return version("auditstore")
    except PackageNotFoundError:
        return "(not installed)"


def check_may_keep(connection: Connection) -> None:
    """Say before a comparison of hours that its report cannot be kept."""
    if not sql.may_add(connection):
        raise DatabaseRefused(
            "this database user may not keep the report",
            hint="Use a user with the role auditstore_exporter, or leave it out with --no-keep.",
        )


def keep(connection: Connection, values: Mapping[str, Any]) -> int:
    """Keep a sealed report; return its number. The caller commits."""
    body = {name: value for name, value in values.items() if name != "sha256"}
    last = values["totals"][-1]
    return sql.add(
        connection,
        started_at=datetime.fromisoformat(values["started_at"]),
        ended_at=datetime.fromisoformat(values["ended_at"]),
        actor=values["actor"],
        scope={name: values[name] for name in _SCOPE},
        result=values["result"],
        counts={kind: count for kind, count in last["counts"].items() if count},
        heads=[
            {
                "stream_id": each["stream_id"],
                "sequence": each["head_sequence"],
                "hash": each["head_hash"],
            }
            # Of other views there is no ledger, and of a stream that was repaired one head.
            for each in {each["stream_id"]: each for each in values["streams"]}.values()
            if each["head_hash"]
        ],
        report=canonical(body).decode(),
        sha256=bytes.fromhex(values["sha256"]),
    )


def read(connection: Connection, number: int) -> Read:
    """A kept report. Raises NotFound, or ReportDamaged if it is not what was kept."""
    found = sql.get(connection, number)
    if found is None:
        raise NotFound(
            f"there is no report {number}", hint="`auditstore report list` shows the reports."
        )
    row, text = found
    computed = hashlib.sha256(text).digest()
    if computed != row.sha256:
        raise ReportDamaged(
            f"report {number} has the SHA-256 {computed.hex()}, and was kept with"
            f" {row.sha256.hex()}",
            hint="The database was altered behind its guards. Compare with a copy kept elsewhere.",
        )
    return Read(row, orjson.loads(text) | {"sha256": computed.hex()})
