"""``auditstore stream test``: does the store take what we write, and does a lead arrive?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

import click
from rich.text import Text

from auditstore import streams
from auditstore.cli.context import Session
from auditstore.cli.display import busy, plain, show, write_json
from auditstore.cli.lead_test import deliver_test_lead
from auditstore.cli.options import json_option
from auditstore.cli.store_test import StoreTest, try_store
from auditstore.cli.stores import store_opener
from auditstore.objects import ObjectStore
from auditstore.streams import Stream

_STYLES: Final = {"works": "green", "warning": "yellow", "fails": "red"}
_STEP_WIDTH: Final = 9


@click.command()
@click.argument("stream_id", metavar="STREAM", type=click.IntRange(min=1))
@click.option("--lead", is_flag=True, help="Append a test lead's events and wait for them.")
@click.option("--timeout", type=click.FloatRange(min=1), default=60.0, show_default=True,
              metavar="SECONDS", help="How long --lead waits.")  # fmt: skip
@json_option
@click.pass_obj
def test(session: Session, *, stream_id: int, lead: bool, timeout: float, as_json: bool) -> None:
    """See whether a stream works.

    Writes a small verification object beside the stream's files and reads it back. With
    --lead, appends the events of a test lead instead, which stay in the store like all
    others, and waits until the running exporter has delivered them.
    """
    if lead:
        deliver_test_lead(session, stream_id, timeout=timeout, as_json=as_json)
        return
    with _opened(session, stream_id) as (stream, store), busy(f"Trying {stream.url}"):
        done = try_store(store, stream, datetime.now(UTC))
    if as_json:
        write_json({
            "stream_id": stream_id, "url": stream.url, "object_key": done.key,
            "works": done.failure is None, "steps": [asdict(step) for step in done.steps],
        })  # fmt: skip
    else:
        _show(stream, done)
    if done.failure is not None:
        raise done.failure


@contextmanager
def _opened(session: Session, stream_id: int) -> Iterator[tuple[Stream, ObjectStore]]:
    with session.reading() as connection:
        stream = streams.get(connection, stream_id)
        store = store_opener(session.vault)(connection, stream)
    try:
        yield stream, store
    finally:
        store.close()


def _show(stream: Stream, done: StoreTest) -> None:
    show(f"Stream {stream.stream_id} to {stream.url}")
    for step in done.steps:
        show(Text.assemble(
            f"  {step.name:<{_STEP_WIDTH}}", plain(step.result, _STYLES[step.result])
        ))  # fmt: skip
        # A failure's words follow on stderr, once.
        if step.result == "warning":
            show(step.message, indent=" " * (_STEP_WIDTH + 2))
            if step.hint:
                show(step.hint, indent=" " * (_STEP_WIDTH + 2), style="dim")
    if done.failure is None:
        show(f"Wrote {done.key}")
        if not stream.enabled:
            show(f"The stream is disabled; start it: auditstore stream enable {stream.stream_id}")
