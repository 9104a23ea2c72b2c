"""Streams: one flow's events to one destination, and what an operator may do with them.

Every function takes the caller's connection and joins its transaction. Every change is
recorded, with who made it.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from auditstore.destinations import Destination, check_encryption, parse_destination
from auditstore.errors import ConfigurationError, NotFound
from auditstore.events import unusable_owner_id
from auditstore.layout import (
    DEFAULT_TEMPLATE,
    EVENT_TEMPLATE,
    FORMATS,
    MAX_NAME_BYTES,
    Format,
    check_template,
)
from auditstore.ledger import GENESIS
from auditstore.sql import server
from auditstore.sql import streams as sql

_RUNNING: Final = "streaming"

#: In place of a cron expression: no reconciliation at this level.
OFF: Final = "off"
FILES_CRON: Final = "0 * * * *"
EVENTS_CRON: Final = "0 3 * * *"


@dataclass(frozen=True, slots=True)
class Limits:
    """When a file is full: bytes of content, events, and seconds after its oldest event."""

    max_bytes: int = 8 * 1024 * 1024
    max_events: int = 10_000
    max_delay: float = 2.0

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could be sealed, or a file not be held in memory."""
        if not 1 <= self.max_bytes <= 1024**3:
            raise ConfigurationError(
                f"max-bytes is {self.max_bytes}", hint="Choose 1 byte to 1 GiB."
            )
        if not 1 <= self.max_events <= 1_000_000:
            raise ConfigurationError(
                f"max-events is {self.max_events}", hint="Choose 1 to 1,000,000 events."
            )
        if not 0 <= self.max_delay <= 3600:
            raise ConfigurationError(
                f"max-delay is {self.max_delay}", hint="Choose 0 to 3600 seconds."
            )


@dataclass(frozen=True, slots=True)
class StreamState:
    """What an operator sees; of a disabled stream only ``since`` is to be shown."""

    state: str
    code: str | None
    cause: str | None
    hint: str | None
    since: datetime
    attempts: int
    next_try_at: datetime | None


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream's settings, and where the exporter stands with it.

    ``url`` and ``endpoint_url`` are what the row says, ``destination`` what they come to.
    """

    stream_id: int
    flow_id: str
    url: str
    endpoint_url: str | None
    region: str | None
    credential_id: int | None
    credential_name: str | None
    options: Mapping[str, str]
    format: Format
    key_template: str
    limits: Limits
    reconcile_files: str
    reconcile_events: str
    enabled: bool
    changed_at: datetime
    credential_changed_at: datetime | None
    sealed_sequence: int
    sealed_position: int
    delivered_sequence: int
    delivered_position: int
    chain_hash: bytes
    history: Mapping[str, str]
    status: StreamState
    lease_owner: str | None
    lease_until: datetime | None

    @property
    def destination(self) -> Destination:
        """Where the files go; ConfigurationError if the row was changed by hand to no place.

        Told only to who wants to go there, so that one such row stops no other stream.
        """
        try:
            return parse_destination(self.url, self.endpoint_url)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"the place of stream {self.stream_id} cannot be read: {error.message}",
                hint="The row was changed past auditstore. Put its url and endpoint_url back as "
                f"`auditstore stream show {self.stream_id}` has them under Changes. {error.hint}",
            ) from error

    def overlaps(self, destination: Destination) -> bool:
        """Whether files of this stream could lie among those of ``destination``."""
        try:
            return self.destination.overlaps(destination)
        except ConfigurationError:
            return False  # it can deliver nowhere

    @property
    def shown_state(self) -> str:
        """The state in one word: ``disabled``, or what the exporter last reported."""
        return self.status.state if self.enabled else "disabled"

    @property
    def version(self) -> tuple[datetime, datetime | None]:
        """Differs after every change of the stream's settings or of its credential."""
        return (self.changed_at, self.credential_changed_at)

    def settings(self) -> dict[str, Any]:
        """The settings as a change records them and a program reads them; no secrets."""
        return {
            "flow_id": self.flow_id,
            "url": self.url,
            "endpoint_url": self.endpoint_url,
            "region": self.region,
            "credential": self.credential_name,
            "options": dict(self.options),
            "format": self.format,
            "key_template": self.key_template,
            "max_bytes": self.limits.max_bytes,
            "max_events": self.limits.max_events,
            "max_delay": self.limits.max_delay,
            "reconcile_files": self.reconcile_files,
            "reconcile_events": self.reconcile_events,
            "enabled": self.enabled,
        }


@dataclass(frozen=True, slots=True)
class NewStream:
    """What to add. ``options`` are the store's own, as ``exporters.stores`` names them.

    ``reconcile_files`` and ``reconcile_events`` are cron expressions that the caller has
    checked, or :data:`OFF`.
    """

    flow_id: str
    url: str
    endpoint_url: str | None = None
    region: str | None = None
    credential_id: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    format: Format = "ndjson.gz"
    key_template: str | None = None
    limits: Limits = field(default_factory=Limits)
    reconcile_files: str = FILES_CRON
    reconcile_events: str = EVENTS_CRON
    enabled: bool = True


def current_actor() -> str:
    """Who runs this process: operating system user at host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def add(connection: Connection, new: NewStream, *, actor: str) -> Stream:
    """Add a stream; enabled, it covers every event appended from now on."""
    sql.lock_configuration(connection)
    destination = parse_destination(new.url, new.endpoint_url)
    _check_flow_id(new.flow_id)
    template = _template(new.format, new.key_template)
    _check_keys(new.format, template, destination, new.flow_id)
    check_encryption(destination.endpoint_url, new.options)
    if new.enabled:
        _check_location(connection, destination, besides=None)
    stream_id = sql.insert_stream(
        connection,
        {
            "flow_id": new.flow_id,
            "url": destination.url,
            "endpoint_url": destination.endpoint_url,
            "location": destination.location,
            "region": new.region,
            "credential_id": new.credential_id,
            "options": dict(new.options),
            "format": new.format,
            "key_template": template,
            "max_bytes": new.limits.max_bytes,
            "max_events": new.limits.max_events,
            "max_delay": new.limits.max_delay,
            "reconcile_files": new.reconcile_files,
            "reconcile_events": new.reconcile_events,
            "enabled": False,
            "chain_hash": GENESIS,
        },
    )
    if new.enabled:
        _start(connection, stream_id, sql.last_position(connection))
    stream = get(connection, stream_id)
    _record(connection, actor, "add", None, stream)
    return stream


def get(connection: Connection, stream_id: int, *, lock: bool = False) -> Stream:
    """One stream, locked until the end of the transaction if asked; NotFound."""
    row = sql.get(connection, stream_id, lock=lock)
    if row is None:
        raise NotFound(
            f"there is no stream {stream_id}", hint="`auditstore stream list` shows the streams."
        )
    return _stream(row)


def find(
    connection: Connection,
    *,
    flow_id: str | None = None,
    enabled: bool | None = None,
    credential_id: int | None = None,
) -> list[Stream]:
    """Streams in the order of their ids."""
    rows = sql.find(connection, flow_id=flow_id, enabled=enabled, credential_id=credential_id)
    return [_stream(row) for row in rows]


def change(
    connection: Connection, stream_id: int, settings: Mapping[str, Any], *, actor: str
) -> Stream:
    """Change settings: any of ``endpoint_url``, ``region``, ``credential_id``, ``options``,
    ``format``, ``key_template``, ``max_bytes``, ``max_events``, ``max_delay``,
    ``reconcile_files``, ``reconcile_events``.

    Files that are sealed already keep their format and key. Flow and location are a stream's
    identity and cannot be changed: add a stream instead.
    """
    sql.lock_configuration(connection)
    before = get(connection, stream_id, lock=True)
    values = dict(settings)
    format_ = values.get("format", before.format)
    if format_ not in FORMATS:
        raise ConfigurationError(
            f"format {format_!r} is not known", hint=f"Formats are {', '.join(FORMATS)}."
        )
    if format_ != before.format and "key_template" not in values:
        values["key_template"] = _template(format_, None)
    template = _template(format_, values.get("key_template", before.key_template))
    if "key_template" in values:
        values["key_template"] = template  # None asks for the default
    _check_keys(format_, template, before.destination, before.flow_id)
    Limits(
        max_bytes=values.get("max_bytes", before.limits.max_bytes),
        max_events=values.get("max_events", before.limits.max_events),
        max_delay=values.get("max_delay", before.limits.max_delay),
    )
    if values.keys() & {"endpoint_url", "options"}:
        check_encryption(
            values.get("endpoint_url", before.endpoint_url), values.get("options", before.options)
        )
    if "endpoint_url" in values:
        destination = parse_destination(before.destination.url, values["endpoint_url"])
        values |= {"endpoint_url": destination.endpoint_url, "location": destination.location}
        if before.enabled:
            _check_location(connection, destination, besides=stream_id)
    sql.update_stream(connection, stream_id, values)
    after = get(connection, stream_id)
    _record(connection, actor, "set", before, after)
    return after


def enable(connection: Connection, stream_id: int, *, catch_up: bool = False, actor: str) -> Stream:
    """Cover every event appended from now on, or with ``catch_up`` from where it stopped."""
    sql.lock_configuration(connection)
    before = get(connection, stream_id, lock=True)
    if before.enabled:
        return before
    _check_location(connection, before.destination, besides=stream_id)
    intervals = sql.intervals(connection, stream_id)
    start = before.sealed_position if catch_up and intervals else sql.last_position(connection)
    _start(connection, stream_id, start)
    after = get(connection, stream_id)
    _record(connection, actor, "enable --catch-up" if catch_up else "enable", before, after)
    return after


def disable(connection: Connection, stream_id: int, *, actor: str) -> Stream:
    """Stop at once. What is not sealed yet is not covered; see ``docs/decisions``."""
    before = get(connection, stream_id, lock=True)
    if not before.enabled:
        return before
    sql.close_interval(connection, stream_id, before.sealed_position)
    sql.switch(connection, stream_id, {"enabled": False})
    after = get(connection, stream_id)
    _record(connection, actor, "disable", before, after)
    return after


def resume(connection: Connection, stream_id: int, *, actor: str) -> Stream:
    """Let a halted or blocked stream try again at once, after its cause was mended."""
    before = get(connection, stream_id, lock=True)
    sql.set_state(connection, stream_id, state=_RUNNING)
    # The operator has looked: the history is that of the server as it is now.
    sql.set_history(connection, stream_id, server.history(connection))
    sql.update_stream(connection, stream_id, {})
    after = get(connection, stream_id)
    _record(connection, actor, "resume", before, after)
    return after


def _start(connection: Connection, stream_id: int, position: int) -> None:
    sql.open_interval(connection, stream_id, position)
    sql.switch(connection, stream_id, {"enabled": True, "sealed_position": position})


def _template(format_: Format, template: str | None) -> str:
    if format_ == "json":
        if template not in {None, EVENT_TEMPLATE}:
            raise ConfigurationError(
                "the format json has LeadConduit's own layout, and no key template",
                hint="Leave the template out, or use the format ndjson.gz.",
            )
        return EVENT_TEMPLATE
    return template or DEFAULT_TEMPLATE


def _check_flow_id(flow_id: str) -> None:
    """No event could ever be appended under an id that the intake refuses."""
    if not flow_id:
        raise ConfigurationError("the flow id is empty", hint="Name the flow with --flow ID.")
    reason = unusable_owner_id(flow_id)
    if reason is not None:
        raise ConfigurationError(
            f"no event can have this flow id: {reason}",
            hint="Copy the id from an event's vars.flow.id.",
        )


def _check_keys(format_: Format, template: str, destination: Destination, flow_id: str) -> None:
    if format_ == "ndjson.gz":
        check_template(
            template, prefix=destination.prefix, flow_id=flow_id,
            max_part_bytes=MAX_NAME_BYTES if destination.scheme == "file" else None,
        )  # fmt: skip


def _check_location(
    connection: Connection, destination: Destination, *, besides: int | None
) -> None:
    """Two enabled streams may not share a location, nor one lie within another's."""
    for other in find(connection, enabled=True):
        if other.stream_id != besides and other.overlaps(destination):
            raise ConfigurationError(
                f"stream {other.stream_id} already delivers to {other.url}",
                hint="Give each stream a prefix of its own, neither within the other, "
                f"or disable stream {other.stream_id} first.",
            )


def _record(
    connection: Connection, actor: str, action: str, before: Stream | None, after: Stream
) -> None:
    sql.record_change(
        connection, actor=actor, subject="stream", subject_id=after.stream_id, action=action,
        before=before.settings() if before else None, after=after.settings(),
    )  # fmt: skip


def changes(connection: Connection, stream_id: int) -> Sequence[Any]:
    """A stream's changes, oldest first: changed_at, actor, database_user, action, before, after."""
    return sql.list_changes(connection, "stream", stream_id)


def state_changes(connection: Connection, stream_id: int, *, limit: int) -> Sequence[Any]:
    """A stream's latest changes of state, the newest first: changed_at, from_state, from_code,
    to_state, to_code, cause, and attempts, the tries that had failed by then.
    """
    return sql.latest_state_changes(connection, stream_id, limit=limit)


def _stream(row: Any) -> Stream:
    return Stream(
        stream_id=row.stream_id,
        flow_id=row.flow_id,
        url=row.url,
        endpoint_url=row.endpoint_url,
        region=row.region,
        credential_id=row.credential_id,
        credential_name=row.credential_name,
        options=row.options,
        format=row.format,
        key_template=row.key_template,
        limits=Limits(row.max_bytes, row.max_events, row.max_delay),
        reconcile_files=row.reconcile_files,
        reconcile_events=row.reconcile_events,
        enabled=row.enabled,
        changed_at=row.changed_at,
        credential_changed_at=row.credential_changed_at,
        sealed_sequence=row.sealed_sequence,
        sealed_position=row.sealed_position,
        delivered_sequence=row.delivered_sequence,
        delivered_position=row.delivered_position,
        chain_hash=bytes(row.chain_hash),
        history=row.history,
        status=StreamState(
            row.state, row.state_code, row.state_cause, row.state_hint, row.state_since,
            row.attempts, row.next_try_at,
        ),
        lease_owner=row.lease_owner,
        lease_until=row.lease_until,
    )  # fmt: skip
