"""One stream's work: what becomes of each kind of failure, and that it goes on afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from support.bucket_check import check_bucket
from support.lead_events import id_of, lead_event
from support.memory_store import DENIED, UNAVAILABLE, MemoryStore

from auditstore import EventRepository, credentials, streams
from auditstore.errors import AuditStoreError, ConfigurationError, DatabaseUnavailable
from auditstore.objects import ObjectInfo, ObjectStore
from auditstore.sql import server
from auditstore.sql import streams as streams_sql
from auditstore.streams import Limits, NewStream, Stream
from auditstore.vault import Vault, new_key
from exporters.fence import SafePosition
from exporters.worker import Outcome, Worker

FLOW = "flow-1"


class Desk:
    """A stream, its store in memory, and a worker."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.store = MemoryStore()
        self.opened: list[Stream] = []
        self.refusal: AuditStoreError | None = None
        self.expected: dict[str, bytes] = {}
        self.worker = Worker(engine, self.open)
        self.stream_id = self.add_stream()

    def open(self, _: sa.Connection, stream: Stream) -> ObjectStore:
        """The worker's way to a store."""
        self.opened.append(stream)
        if self.refusal is not None:
            raise self.refusal
        return self.store

    def add_stream(self, **changes: Any) -> int:
        """Files of two events, due at once; the bucket counts as looked at already."""
        new = {
            "flow_id": FLOW, "url": "s3://bucket-1/some/prefix",
            "limits": Limits(max_events=2, max_delay=0), **changes,
        }  # fmt: skip
        with self.engine.begin() as connection:
            stream_id = streams.add(connection, NewStream(**new), actor="test").stream_id
            streams_sql.set_history(connection, stream_id, server.history(connection))
        return stream_id

    def append(self, count: int) -> None:
        """Commit events, and expect them in the bucket."""
        made = [lead_event(FLOW) for _ in range(count)]
        with self.engine.begin() as connection:
            EventRepository().append(connection, made)
        self.expected |= {id_of(each): each for each in made}

    def work(self, **options: Any) -> Outcome:
        """Work up to the last position; every writer of these tests is done."""
        with self.engine.connect() as connection:
            fence = SafePosition(streams_sql.last_position(connection), server.run(connection))
        return self.worker.work(self.stream_id, fence, **options)

    def stream(self) -> Stream:
        """The stream as it stands."""
        with self.engine.connect() as connection:
            return streams.get(connection, self.stream_id)

    def change(self, **settings: Any) -> None:
        """Change a setting, as an operator does."""
        with self.engine.begin() as connection:
            streams.change(connection, self.stream_id, settings, actor="test")

    def resume(self) -> None:
        """Let it try again, as an operator does."""
        with self.engine.begin() as connection:
            streams.resume(connection, self.stream_id, actor="test")

    def check(self) -> None:
        """Everything that was appended lies in the bucket exactly once, and nothing else."""
        check_bucket(self.engine, self.stream_id, self.store, self.expected)


@pytest.fixture
def desk(engine: sa.Engine) -> Iterator[Desk]:
    """One stream with nothing appended yet."""
    made = Desk(engine)
    yield made
    made.worker.close()


def test_work_delivers_what_is_due_and_says_what_is_not(desk: Desk) -> None:
    """Full files go at once, the rest waits for its delay or for flushing."""
    desk.change(max_delay=600)
    desk.append(5)
    outcome = desk.work()
    assert (outcome.delivered, outcome.events, outcome.error) == (2, 4, None)
    # Not always the whole delay: a file is due at the end of its hour too.
    assert outcome.due_in is not None
    assert 0 < outcome.due_in <= 600
    assert desk.work(flush=True) == Outcome(delivered=1, events=1)
    assert desk.work() == Outcome()
    desk.check()


def test_work_stops_between_files_when_told_to(desk: Desk) -> None:
    """An interrupted turn says that it wants another one at once."""
    desk.append(6)
    answers = iter([True, True, False])
    outcome = desk.work(may_go_on=lambda: next(answers))
    assert outcome == Outcome(delivered=2, events=4, due_in=0.0)
    desk.work()
    desk.check()


def test_a_store_away_is_tried_again_ever_more_seldom(desk: Desk) -> None:
    """Backoff grows in its bound, up to a minute, with jitter; nothing is skipped meanwhile."""
    desk.append(5)
    desk.store.trouble = UNAVAILABLE
    for attempt in range(1, 13):
        outcome = desk.work()
        assert outcome.retry_in is not None
        assert 0.5 <= outcome.retry_in <= min(60.0, 0.5 * 2**attempt)
        assert not outcome.halted
        status = desk.stream().status
        assert (status.state, status.attempts) == ("retrying", attempt)
    assert (status.code, status.cause, status.hint) == (
        "store-unavailable", "the store is away", "It comes back by itself.",
    )  # fmt: skip
    assert status.next_try_at is not None
    assert status.next_try_at > status.since
    assert desk.stream().sealed_sequence == 1  # one file waits, the rest stays in the outbox
    waits = [desk.work().retry_in for _ in range(6)]
    assert len(set(waits)) == len(waits)


def test_after_an_outage_everything_is_delivered_once(desk: Desk) -> None:
    """The state is cleared, and the attempts begin anew with the next trouble."""
    desk.append(5)
    desk.store.trouble = UNAVAILABLE
    for _ in range(3):
        desk.work()
    desk.store.trouble = None
    assert desk.work(flush=True) == Outcome(delivered=3, events=5)
    status = desk.stream().status
    assert (status.state, status.code, status.attempts, status.next_try_at) == (
        "streaming", None, 0, None,
    )  # fmt: skip
    desk.check()
    desk.append(1)
    desk.store.trouble = UNAVAILABLE
    desk.work()
    assert desk.stream().status.attempts == 1


def test_an_upload_whose_answer_was_lost_counts(desk: Desk) -> None:
    """The object arrived though the store seemed away: found, compared, recorded, not doubled."""

    class AnswersLost(MemoryStore):
        lost = 2

        def put_if_absent(self, new: Any) -> Any:
            result = super().put_if_absent(new)
            if self.lost:
                self.lost -= 1
                raise UNAVAILABLE
            return result

    desk.store = AnswersLost()
    desk.append(6)
    assert desk.work().error is UNAVAILABLE
    assert desk.work().error is UNAVAILABLE
    assert desk.work().error is None
    desk.check()


def test_a_denying_store_blocks_with_cause_and_hint(desk: Desk) -> None:
    """The operator reads the store's own word; it asks again by itself, and nothing is skipped."""
    desk.append(5)
    desk.store.trouble = DENIED
    outcome = desk.work()
    assert outcome.retry_in == 30.0
    status = desk.stream().status
    assert (status.state, status.code, status.cause, status.hint) == (
        "blocked", "AccessDenied", "the store says no", "Allow s3:PutObject.",
    )  # fmt: skip
    since = status.since
    desk.work()
    assert desk.stream().status.since == since
    assert desk.stream().status.attempts == 2
    desk.store.trouble = None
    desk.work()
    desk.check()
    assert desk.stream().status.state == "streaming"


def test_a_stream_without_a_usable_store_is_blocked(desk: Desk) -> None:
    """A credential that no key opens is the operator's, like a store that says no."""
    desk.append(1)
    desk.refusal = ConfigurationError("no key opens it", hint="Add the key.")
    assert desk.work().retry_in == 30.0
    status = desk.stream().status
    assert (status.state, status.code, status.cause) == (
        "blocked", "configuration", "no key opens it",
    )  # fmt: skip
    desk.refusal = None
    desk.work()
    desk.check()


@pytest.mark.parametrize("foreign", [b"somebody else's", b"", b"\x1f\x8b\x08broken"])
def test_a_foreign_object_halts_and_is_never_overwritten(desk: Desk, foreign: bytes) -> None:
    """Until an operator resumes nothing more is tried; then everything goes out once."""
    desk.append(5)
    desk.store.trouble = UNAVAILABLE
    desk.work()
    (key,) = desk.store.tries
    desk.store.trouble = None
    desk.store.objects[key] = foreign

    outcome = desk.work()
    assert outcome.halted
    assert (outcome.retry_in, outcome.delivered) == (None, 0)
    status = desk.stream().status
    assert (status.state, status.code) == ("halted", "object-conflict")
    assert key in str(status.cause)
    assert "stream resume" in str(status.hint)
    tries = desk.store.tries.total()
    assert desk.work() == Outcome()
    assert desk.store.tries.total() == tries
    assert desk.store.objects == {key: foreign}

    # Resumed too early it halts again.
    desk.resume()
    assert desk.work().halted
    assert desk.store.objects == {key: foreign}
    del desk.store.objects[key]
    desk.resume()
    assert desk.work().error is None
    desk.check()


def test_a_changed_outbox_halts(desk: Desk) -> None:
    """A sealed file that has lost an event is not delivered short."""
    desk.append(2)
    desk.store.trouble = UNAVAILABLE
    desk.work()
    desk.store.trouble = None
    with desk.engine.begin() as connection:
        connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
        connection.execute(sa.text("DELETE FROM auditstore.events WHERE position = 2"))
    assert desk.work().halted
    status = desk.stream().status
    assert (status.state, status.code) == ("halted", "ledger-mismatch")
    assert desk.store.objects == {}


def test_a_defect_is_shown_and_tried_again(desk: Desk) -> None:
    """An exception that nobody foresaw stops one stream's turn, never the exporter."""
    desk.append(3)
    desk.store.trouble = KeyError("secret detail")
    outcome = desk.work()
    assert outcome.retry_in is not None
    status = desk.stream().status
    assert (status.state, status.code) == ("retrying", "error")
    assert status.cause == "unexpected failure: KeyError"
    assert "secret detail" not in f"{status.cause} {status.hint}"
    desk.store.trouble = None
    desk.work()
    desk.check()


def test_the_database_s_own_trouble_is_no_state_of_the_stream(desk: Desk) -> None:
    """It is raised, so that the daemon waits for the database."""
    desk.append(1)
    away = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    with pytest.raises(DatabaseUnavailable):
        Worker(away, desk.open).work(desk.stream_id, SafePosition(1, ""))
    assert desk.stream().status.state == "streaming"


def test_a_store_is_kept_open_until_something_changes(desk: Desk) -> None:
    """One store for all files; a new one after a setting changed, the old one closed."""
    desk.append(6)
    desk.work()
    assert len(desk.opened) == 1
    desk.change(region="eu-west-1")
    desk.append(2)
    desk.work()
    assert [stream.region for stream in desk.opened] == [None, "eu-west-1"]
    assert desk.store.closed == 1
    desk.check()


def test_a_rotated_credential_opens_the_store_anew(desk: Desk) -> None:
    """The stream's settings are the same, but its store is made with the new secret."""
    vault = Vault([new_key()])
    secret = {"access_key_id": "AKIATESTTESTTESTTEST", "secret_access_key": "old"}
    with desk.engine.begin() as connection:
        kept = credentials.add(
            connection, vault, name="main", kind="s3", secret=secret, actor="test"
        )
    desk.change(credential_id=kept.credential_id)
    desk.append(2)
    desk.work()
    desk.append(2)
    desk.work()
    assert len(desk.opened) == 1
    with desk.engine.begin() as connection:
        new = secret | {"secret_access_key": "new"}
        credentials.rotate(connection, vault, "main", new, "test")
    desk.append(2)
    desk.work()
    assert len(desk.opened) == 2
    desk.check()


def test_closing_closes_the_stores(engine: sa.Engine) -> None:
    """A worker leaves no connection behind, and may be closed twice."""
    desk = Desk(engine)
    desk.append(1)
    desk.work()
    desk.worker.close()
    desk.worker.close()
    assert desk.store.closed == 1


def test_a_disabled_stream_delivers_nothing(desk: Desk) -> None:
    """Not even what is sealed; it goes out once the stream is enabled again."""
    desk.append(2)
    desk.store.trouble = UNAVAILABLE
    desk.work()
    desk.store.trouble = None
    with desk.engine.begin() as connection:
        streams.disable(connection, desk.stream_id, actor="test")
    assert desk.work(flush=True) == Outcome()
    assert desk.store.objects == {}
    with desk.engine.begin() as connection:
        streams.enable(connection, desk.stream_id, actor="test")
    desk.work()
    desk.check()


@pytest.mark.parametrize("format_", ["ndjson.gz", "json"])
def test_two_workers_on_one_stream_do_harmless_double_work(engine: sa.Engine, format_: str) -> None:
    """Without any lease, from four threads and two workers: each event once, in order."""
    desk = Desk(engine)
    desk.change(format=format_, max_events=7)
    other = Worker(engine, desk.open)
    failures: list[AuditStoreError] = []
    writing = threading.Event()
    writing.set()

    def work(worker: Worker) -> None:
        while True:
            last_round = not writing.is_set()
            with engine.connect() as connection:
                fence = SafePosition(streams_sql.last_position(connection), server.run(connection))
            outcome = worker.work(desk.stream_id, fence, flush=True)
            if outcome.error is not None:
                failures.append(outcome.error)
                return
            if last_round:
                return

    threads = [threading.Thread(target=work, args=(worker,)) for worker in (desk.worker, other) * 2]
    for thread in threads:
        thread.start()
    for count in range(1, 25):
        desk.append(count)
    writing.clear()
    for thread in threads:
        thread.join()
    assert not failures
    assert max(desk.store.tries.values()) > 1, "the workers never met"
    desk.check()
    desk.worker.close()
    other.close()


# --- a history that is to be checked ------------------------------------------------


class BusyStore(MemoryStore):
    """Something happens in the bucket just before it is listed."""

    def __init__(self) -> None:
        super().__init__()
        self.before_listing: Callable[[], object] = lambda: None

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Objects by prefix, as they are after what happens."""
        self.before_listing()
        return super().list(prefix, start_after=start_after)


def after_a_failover(desk: Desk) -> None:
    """The stream's marks were taken on another timeline."""
    history = dict(desk.stream().history) | {"timeline": "00000000"}
    with desk.engine.begin() as connection:
        streams_sql.set_history(connection, desk.stream_id, history)


def test_what_another_worker_delivers_meanwhile_is_no_lost_history(desk: Desk) -> None:
    """A file sealed and stored after this worker read the marks is known to the ledger."""
    desk.store = store = BusyStore()
    desk.append(2)
    assert desk.work().delivered == 1
    after_a_failover(desk)
    desk.append(2)
    with desk.engine.connect() as connection:
        fence = SafePosition(streams_sql.last_position(connection), server.run(connection))
    other = Worker(desk.engine, desk.open)

    def deliver() -> None:
        store.before_listing = lambda: None
        assert other.work(desk.stream_id, fence).delivered == 1

    store.before_listing = deliver
    outcome = desk.work()
    other.close()
    assert (outcome.error, outcome.halted) == (None, False)
    assert desk.stream().status.state == "streaming"
    desk.check()


def test_no_connection_is_held_while_the_bucket_is_listed(desk: Desk) -> None:
    """A slow bucket is no reason for an idle-in-transaction timeout, nor to use up the pool."""
    desk.store = store = BusyStore()
    desk.append(2)
    assert desk.work().delivered == 1
    after_a_failover(desk)
    desk.append(2)
    held: list[int] = []
    pool = desk.engine.pool
    assert isinstance(pool, sa.QueuePool)
    store.before_listing = lambda: held.append(pool.checkedout())
    assert desk.work().delivered == 1
    assert held == [0]
    desk.check()


def test_what_the_database_refuses_one_stream_is_its_state(desk: Desk) -> None:
    """Not the whole exporter's end: others go on, and this one says why it does not."""
    other = desk.add_stream(url="s3://bucket-2/some/prefix")
    with desk.engine.begin() as connection:
        connection.execute(sa.text(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'not this one'; END $$;"
            "CREATE TRIGGER refuse BEFORE INSERT ON auditstore.files FOR EACH ROW"
            f" WHEN (NEW.stream_id = {desk.stream_id}) EXECUTE FUNCTION refuse()"
        ))  # fmt: skip
    desk.append(2)
    outcome = desk.work()
    assert outcome.retry_in is not None
    status = desk.stream().status
    assert (status.state, status.code) == ("retrying", "database-refused")
    assert "not this one" in (status.cause or "")
    with desk.engine.connect() as connection:
        fence = SafePosition(streams_sql.last_position(connection), server.run(connection))
    desk.store = MemoryStore()
    assert desk.worker.work(other, fence).delivered == 1


def test_trouble_that_is_mended_ends_though_nothing_waits(desk: Desk) -> None:
    """A bucket that may be listed again is no trouble any more, in status and metrics too."""
    desk.append(2)
    assert desk.work().delivered == 1
    after_a_failover(desk)
    desk.store.trouble = DENIED
    assert desk.work().retry_in == 30.0
    assert desk.stream().status.state == "blocked"
    desk.store.trouble = None
    assert desk.work() == Outcome()
    status = desk.stream().status
    assert (status.state, status.code, status.attempts) == ("streaming", None, 0)
