"""What every call of the API works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Final, cast

from fastapi import Depends, Request
from pydantic import StringConstraints
from sqlalchemy import Connection, Engine

from auditstore.events import DEFAULT_MAX_EVENT_BYTES
from auditstore.sql.failures import translated
from auditstore.vault import Vault
from auditstore.web.api.limits import TokenBuckets
from auditstore.web.console.reconcile_jobs import ReconcileJobs

_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """How much a caller may ask for.

    ``rate`` requests a second for each key, ``burst`` at once; bodies in bytes. With ``rules``
    a request looks at ``looked_at`` events at most.
    """

    rate: float = 20.0
    burst: int = 100
    max_body: int = _MIB
    max_append_body: int = 64 * _MIB
    max_event: int = DEFAULT_MAX_EVENT_BYTES
    looked_at: int = 50_000


@dataclass(frozen=True, slots=True)
class Api:
    """The database, the keys for secrets, what runs, and who has asked how often."""

    engine: Engine
    vault: Vault
    jobs: ReconcileJobs
    settings: ApiSettings
    of_keys: TokenBuckets = field(init=False)
    of_strangers: TokenBuckets = field(init=False)

    def __post_init__(self) -> None:
        """Make the buckets as the settings say."""
        for name in ("of_keys", "of_strangers"):
            buckets = TokenBuckets(rate=self.settings.rate, burst=self.settings.burst)
            object.__setattr__(self, name, buckets)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read from, nothing of it open afterwards."""
        with translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """A transaction, committed at the end."""
        with translated(), self.engine.begin() as connection:
            yield connection


def api_of(request: Request) -> Api:
    """The application's own."""
    return cast("Api", request.app.state.api)


InApi = Annotated[Api, Depends(api_of)]

# What a text column takes: PostgreSQL has no NUL.
Text = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[^\u0000]*$")]
FlowId = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\u0000]+$")]
EventId = Annotated[str, StringConstraints(pattern="^[0-9a-fA-F]{24}$")]
