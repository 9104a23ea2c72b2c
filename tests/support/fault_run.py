"""A fault in the midst of work, and the promise checked afterwards by reading the bucket itself.

Eight writers append and exporters export, on one database and one place. The test injects its
fault; in the end every committed event must lie in the bucket exactly once, byte for byte, in
order, in files without a gap, with the hash chain whole and the reconciliation clean.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from auditstore import streams
from auditstore.database import create_engine
from auditstore.destinations import Destination
from auditstore.layout import Format
from auditstore.objects import ObjectStore
from auditstore.reconciliation import Finding, Scope, compare_stream
from auditstore.streams import Limits, NewStream, Stream
from support.bucket_check import check_bucket
from support.eventually import eventually
from support.exporters import Exporter
from support.stores import Place, count_versions, keep_versions
from support.writers import Writers

LIMITS = Limits(max_events=30, max_bytes=40_000, max_delay=0.15)
#: For faults that let a backlog grow: files with which exporters outrun the writers.
LARGE = Limits(max_events=300, max_bytes=400_000, max_delay=0.15)
FLOWS = ("flow-a", "flow-b")


@dataclass
class Figures:
    """What a run came to; ``recoveries`` in seconds."""

    seed: int
    events: int = 0
    objects: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    recoveries: list[float] = field(default_factory=list)
    seconds: float = 0.0


def chosen_seed() -> int:
    """The seed in AUDITSTORE_TEST_SEED, or one by chance; printed, to repeat a run with."""
    given = os.environ.get("AUDITSTORE_TEST_SEED")
    seed = int(given) if given else secrets.randbits(32)
    print(f"seed {seed} (AUDITSTORE_TEST_SEED={seed} repeats it)")
    return seed


class FaultRun:
    """Writers and ``exporters`` processes at work on one stream of files a flow, on ``place``.

    In a folder, where it is cheap, the last flow has a second stream, of single events.

    The streams deliver to ``destination`` with ``secret`` where these are given, as by way of
    a proxy; what lies there is read from ``place`` itself. Exporters reach the database by
    ``exporter_url`` where that is given. ``exporter`` are further arguments of each
    :class:`Exporter`, ``without`` are acts that the writers leave out.
    """

    def __init__(
        self,
        database_url: str,
        place: Place,
        *,
        exporters: int = 1,
        flows: Sequence[str] = FLOWS,
        limits: Limits = LIMITS,
        holds: float = 0.2,
        pace: float = 0.3,
        seed: int | None = None,
        destination: Destination | None = None,
        secret: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        exporter_url: str | None = None,
        exporter: Mapping[str, Any] | None = None,
        tolerant: bool = True,
        without: Sequence[str] = (),
    ) -> None:
        self.place = place
        self.figures = Figures(chosen_seed() if seed is None else seed)
        self.chance = random.Random(self.figures.seed)
        self.exporters: list[Exporter] = []
        self.engine = create_engine(
            database_url, application_name="fault run", poolclass=sa.NullPool
        )
        self._writers_engine = create_engine(
            database_url, application_name="writers", pool_size=10, pool_timeout=60
        )
        self.writers = Writers(
            self._writers_engine, flows, self.figures.seed,
            holds=holds, pace=pace, tolerant=tolerant, without=without,
        )  # fmt: skip
        self._exporter_url = exporter_url or database_url
        self._secret = place.secret if secret is None else secret
        self._exporter = dict(exporter or {})
        self._logs = Path(tempfile.mkdtemp(prefix="auditstore-exporters-"))
        self._at_work = False
        if place.kind == "s3":
            keep_versions(place)
        self.streams = self._add_streams(
            flows, destination or place.destination, limits, options or {}
        )
        for _ in range(exporters):
            self.add_exporter()

    def _add_streams(
        self, flows: Sequence[str], base: Destination, limits: Limits, options: Mapping[str, str]
    ) -> list[Stream]:
        wanted: list[tuple[str, Format]] = [(flow, "ndjson.gz") for flow in flows]
        if base.scheme == "file":
            wanted.append((flows[-1], "json"))
        made = []
        with self.engine.begin() as connection:
            for number, (flow, format_) in enumerate(wanted):
                below = _below(base, f"stream-{number}")
                new = NewStream(
                    flow_id=flow, url=below.url, endpoint_url=below.endpoint_url,
                    format=format_, limits=limits, options=dict(options),
                )  # fmt: skip
                made.append(streams.add(connection, new, actor="test"))
        return made

    # --- while it runs --------------------------------------------------------------

    def add_exporter(self, **settings: Any) -> Exporter:
        """One more :class:`Exporter`, at work at once if the run is."""
        log = self._logs / f"exporter-{len(self.exporters) + 1}.log"
        exporter = Exporter(self._exporter_url, self._secret, log, **self._exporter | settings)
        self.exporters.append(exporter)
        return exporter.start() if self._at_work else exporter

    @contextmanager
    def running(self, *, drain: bool = True, within: float = 60.0) -> Iterator[FaultRun]:
        """Write and export while the block runs; then the writers stop, and all is delivered.

        Without ``drain`` nothing more needs to be delivered, as where streams are halted.
        """
        began = time.monotonic()
        with self._showing_logs():
            try:
                for exporter in self.exporters:
                    exporter.start()
                self._at_work = True
                with self.writers.running():
                    yield self
                if drain:
                    self._drain(within)
                self._stop_exporters()
            finally:
                self._at_work = False
                for exporter in self.exporters:
                    exporter.close()
                self._writers_engine.dispose()
        self.figures.seconds = time.monotonic() - began

    def injected(self, fault: str, n: int = 1) -> None:
        """Count a fault for the figures."""
        self.figures.faults[fault] += n

    def progress(self, events: int = 20, *, within: float = 30.0) -> None:
        """Wait until so many more events are delivered than now: exporters are at work."""
        goal = eventually(lambda: self._ask(_DELIVERED, 0), within=within, what="an answer")
        assert goal is not None
        more = goal[0] + events
        self._await(f"{events} more events are delivered", _DELIVERED_IS, more, within)

    def recovered(self, within: float = 30.0) -> float:
        """Wait until all that is committed by now is delivered; the seconds that it took."""
        began = time.monotonic()
        answer = eventually(lambda: self._ask(_LAST_POSITION, 0), within=within, what="an answer")
        assert answer is not None
        self._await("what was committed is delivered", _NOTHING_LEFT_UPTO, answer[0], within)
        took = time.monotonic() - began
        self.figures.recoveries.append(took)
        print(f"recovered after {took:.2f} s")
        return took

    def _await(self, what: str, statement: str, value: int, within: float) -> None:
        try:
            eventually(
                lambda: (
                    any(exporter.fell for exporter in self.exporters)
                    or ((found := self._ask(statement, value)) is not None and found[0])
                ),
                within=within,
            )
        except AssertionError:
            raise AssertionError(f"not within {within} s: {what}; {self._states()}") from None
        self._check_that_none_fell()

    def _ask(self, statement: str, value: int) -> tuple[Any] | None:
        """The answer in a tuple; ``None`` while the database is in trouble."""
        try:
            with self.engine.connect() as connection:
                return (connection.execute(sa.text(statement), {"value": value}).scalar_one(),)
        except DBAPIError:
            return None

    def _states(self) -> str:
        with self.engine.connect() as connection:
            found = streams.find(connection)
        return "; ".join(f"stream {each.stream_id}: {each.status}" for each in found)

    def _drain(self, within: float) -> None:
        for exporter in self.exporters:
            if exporter.is_paused:
                exporter.resume()
        if not any(exporter.running for exporter in self.exporters):
            self.add_exporter()
        self.recovered(within)

    def _stop_exporters(self) -> None:
        self._check_that_none_fell()
        for number, exporter in enumerate(self.exporters, start=1):
            if exporter.running:
                assert exporter.stop() == 0, f"exporter {number} left with an error"

    def _check_that_none_fell(self) -> None:
        for number, exporter in enumerate(self.exporters, start=1):
            assert not exporter.fell, f"exporter {number} ended by itself: {exporter.ended()}"

    # --- afterwards -----------------------------------------------------------------

    def check(self, note: str = "") -> Figures:
        """Fail unless the promise is kept on every stream; prints and returns the figures."""
        assert self.writers.events, "nothing was written"
        with self._showing_logs():
            for stream in self.streams:
                self._check(stream)
        figures, acts = self.figures, dict(sorted(self.writers.done.items()))
        faults = ", ".join(f"{count} {name}" for name, count in sorted(figures.faults.items()))
        recoveries = ", ".join(f"{seconds:.2f}" for seconds in figures.recoveries)
        print(
            f"{self.place.kind}: {figures.events} events in {figures.objects} objects,"
            f" faults: {faults or 'none'}; recovered after {recoveries or '-'} s;"
            f" {figures.seconds:.1f} s in all; writers: {acts}{f'; {note}' if note else ''}"
        )
        self.engine.dispose()
        self._writers_engine.dispose()
        shutil.rmtree(self._logs)
        return figures

    def open_store(self, stream: Stream) -> ObjectStore:
        """The stream's part of the place, past any proxy, for the test's own looking."""
        here = self.place.destination.endpoint_url
        return self.place.open(replace(stream.destination, endpoint_url=here))

    def _check(self, stream: Stream) -> None:
        store = self.open_store(stream)
        try:
            checked = check_bucket(
                self.engine, stream.stream_id, store, self.writers.committed[stream.flow_id],
                versions=count_versions(self.place) if self.place.kind == "s3" else None,
            )  # fmt: skip
        finally:
            store.close()
        findings: list[Finding] = []
        summary = compare_stream(
            self.engine, stream.stream_id, lambda: self.open_store(stream), Scope("events"),
            report=findings.append,
        )  # fmt: skip
        assert summary.result == "reconciled", findings[:5]
        assert summary.events_matched == checked.events
        self.figures.objects += checked.objects
        self.figures.events += checked.events

    @contextmanager
    def _showing_logs(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for exporter in self.exporters:
                print(f"=== {exporter.log}\n{exporter.tail()}")
            raise


def _below(destination: Destination, name: str) -> Destination:
    if destination.scheme == "file":
        return replace(destination, bucket=f"{destination.bucket}-{name}")
    prefix = f"{destination.prefix}/{name}" if destination.prefix else name
    return replace(destination, prefix=prefix)


_DELIVERED = (
    "SELECT coalesce(sum(event_count), 0) FROM auditstore.files WHERE delivered_at IS NOT NULL"
)
_DELIVERED_IS = f"SELECT ({_DELIVERED}) >= :value"
_LAST_POSITION = "SELECT coalesce(max(position), 0) FROM auditstore.events"
_NOTHING_LEFT_UPTO = (
    "SELECT NOT EXISTS (SELECT FROM auditstore.streams s JOIN auditstore.events e"
    " ON e.flow_id = s.flow_id AND e.position > s.delivered_position AND e.position <= :value"
    " WHERE s.enabled)"
)
