"""From what the dialog asks for to what is done: said before it is saved, then done as said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection

from auditstore import credentials, streams
from auditstore.cli.wording import number
from auditstore.errors import ConfigurationError
from auditstore.layout import DEFAULT_TEMPLATE, event_key, file_key
from auditstore.sql.streams import last_position
from auditstore.streams import Limits, NewStream, Stream
from auditstore.vault import Vault
from auditstore.web.console.stream_wish import Wish

_WORDS: Final = {
    "endpoint_url": "endpoint", "region": "region", "credential": "credential",
    "format": "format", "max_delay": "delay",
}  # fmt: skip
_EXAMPLE_LEAD: Final = "6744a1c0e4b0a1b2c3d4e5f6"
_EXAMPLE_EVENT: Final = "6744a1c2e4b0a1b2c3d4e5f9"


@dataclass(frozen=True, slots=True)
class Plan:
    """What saving does, for one service.

    ``target`` is the stream that is to deliver, if there is one already; ``settings`` change
    in it; ``stopped`` is the one that stops.
    """

    wish: Wish
    target: Stream | None = None
    stopped: Stream | None = None
    settings: tuple[tuple[str, Any, Any], ...] = ()

    @property
    def adds(self) -> bool:
        """Whether a stream is added."""
        return self.wish.on and self.target is None

    @property
    def starts(self) -> bool:
        """Whether a stream that is there is switched on."""
        return self.target is not None and not self.target.enabled

    @property
    def sentences(self) -> list[str]:
        """What changes, in words; none where nothing does."""
        said = []
        place = self.wish.destination.url if self.wish.destination else ""
        if self.wish.on and self.wish.is_new_credential:
            said.append(f"The credential {self.wish.name or '(not named yet)'} is kept, encrypted.")
        if self.adds or self.starts:
            said.append(
                f"Every event appended from now on is delivered to {place}. What was appended "
                "before is not."
            )
        for name, before, after in self.settings:
            said.append(
                f"{_WORDS[name][:1].upper()}{_WORDS[name][1:]}: {_shown(name, before)} becomes "
                f"{_shown(name, after)}, from the next file on."
            )
        if self.stopped is not None:
            said.append(
                f"Delivery to {self.stopped.url} stops at once. Events that are not in a file "
                "by then are not delivered there; what was delivered stays."
            )
        return said


def plan(wish: Wish, of_flow: Sequence[Stream]) -> Plan:
    """What saving this wish does to the flow's streams."""
    shown = next((each for each in of_flow if each.stream_id == wish.stream_id), None)
    if not wish.on:
        return Plan(wish, stopped=shown if shown and shown.enabled else None)
    if wish.destination is None:
        return Plan(wish)
    same = [each for each in of_flow if each.url == wish.destination.url]
    target = max(same, key=lambda each: (each.enabled, each.changed_at), default=None)
    moved = shown is not None and shown.enabled and shown is not target
    return Plan(
        wish, target, stopped=shown if moved else None,
        settings=_differences(target, wish) if target else (),
    )  # fmt: skip


def carry_out(
    connection: Connection, vault: Vault, flow_id: str, plans: Sequence[Plan], *, actor: str
) -> None:
    """Do what the plans say, in the caller's transaction; ConfigurationError where it cannot be."""
    for each in plans:
        if each.stopped is not None:
            streams.disable(connection, each.stopped.stream_id, actor=actor)
    for each in plans:
        if each.wish.on:
            _deliver(connection, vault, flow_id, each, actor)


def _deliver(connection: Connection, vault: Vault, flow_id: str, plan_: Plan, actor: str) -> None:
    wish = plan_.wish
    if wish.is_new_credential:
        added = credentials.add(
            connection, vault, name=wish.name, kind=wish.service, secret=wish.secret or {},
            actor=actor,
        )  # fmt: skip
        wish = replace(wish, credential=added.name)
    name = wish.credential
    credential_id = credentials.get_by_name(connection, name).credential_id if name else None
    if plan_.target is None:
        assert wish.destination is not None  # noqa: S101  # a wish with errors is not carried out
        new = NewStream(
            flow_id=flow_id, url=wish.destination.url, endpoint_url=wish.destination.endpoint_url,
            region=wish.region or None, credential_id=credential_id, format=wish.format,
            limits=Limits(max_delay=wish.delay),
        )  # fmt: skip
        streams.add(connection, new, actor=actor)
        return
    settings = {name: after for name, _, after in plan_.settings if name != "credential"}
    if plan_.target.credential_id != credential_id:
        settings["credential_id"] = credential_id
    if settings:
        streams.change(connection, plan_.target.stream_id, settings, actor=actor)
    streams.enable(connection, plan_.target.stream_id, actor=actor)


def key_preview(connection: Connection, flow_id: str, wish: Wish, target: Stream | None) -> str:
    """The key that a file will get, with the numbers of the present."""
    prefix = wish.destination.prefix if wish.destination else wish.prefix
    if wish.format == "json":
        return event_key(prefix=prefix, lead_id=_EXAMPLE_LEAD, event_id=_EXAMPLE_EVENT)
    own_template = target is not None and target.format == wish.format
    position = last_position(connection) + 1
    return file_key(
        target.key_template if target is not None and own_template else DEFAULT_TEMPLATE,
        prefix=prefix, flow_id=flow_id, stream_id=target.stream_id if target else 1,
        sequence=target.sealed_sequence + 1 if target else 1, first=position, last=position + 4,
        recorded_at=datetime.now(UTC),
    )  # fmt: skip


def refusal_field(error: ConfigurationError) -> str:
    """The field that a refusal of the whole is shown at."""
    return (
        "prefix" if "already delivers to" in error.message or "keys" in error.message else "bucket"
    )


def _differences(target: Stream, wish: Wish) -> tuple[tuple[str, Any, Any], ...]:
    endpoint = wish.destination.endpoint_url if wish.destination else None
    wanted = {
        "endpoint_url": endpoint, "region": wish.region or None,
        "credential": wish.name if wish.is_new_credential else wish.credential or None,
        "format": wish.format, "max_delay": wish.delay,
    }  # fmt: skip
    before = target.settings()
    return tuple((name, before[name], new) for name, new in wanted.items() if before[name] != new)


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "the environment's own" if name == "credential" else "none"
    return f"{value:g} s" if name == "max_delay" else str(value)


def summary(plans: Sequence[Plan]) -> str:
    """One line for the page after it was saved."""
    return number(sum(bool(each.sentences) for each in plans), "stream")
