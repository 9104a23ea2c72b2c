"""What a model run consists of, and the guards that can be taken away from it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Guards:
    """What the product does so that nothing goes wrong; each can be switched off alone."""

    # Appending.
    lock_before_position: bool = True
    """A position is handed out by the INSERT, which holds the table's lock by then."""
    no_sequence_cache: bool = True
    """The sequence has CACHE 1: no session keeps lower positions for later."""

    # The fence.
    writers_waited_for: bool = True
    """A position is safe once the writers seen at it are over."""
    position_before_writers: bool = True
    """H is read before the writers are."""
    prepared_are_writers: bool = True
    """Prepared transactions count, though they have no process."""
    fresh_snapshot: bool = True
    """The tail is read in a snapshot that is younger than the look at the writers."""
    fence_forgets_old_runs: bool = True
    """Marks of another run of the server are thrown away."""

    # Sealing.
    run_checked: bool = True
    """A safe position of another run of the server seals nothing."""
    seal_row_lock: bool = True
    """The stream's row is locked while a file is sealed."""
    one_in_flight: bool = True
    """Under the lock a worker looks for an undelivered file before it seals another."""
    sequence_unique: bool = True
    """The ledger's primary key: one row a sequence number."""
    seal_before_upload: bool = True
    """The sealed row is committed before anything leaves the database."""
    durable_seal: bool = True
    """The seal's commit waits for the disk."""
    mark_at_last_event: bool = True
    """The sealed mark moves to the last event, not to the fence."""
    upto_fence: bool = True
    """Sealing reads up to the safe position, not to the end."""

    # Uploading.
    frozen_range: bool = True
    """What is rendered is the sealed range, not all that is there by now."""
    same_bytes: bool = True
    """The same range gives the same content, whoever renders it."""
    create_only: bool = True
    """A key that is taken is not written again."""
    content_compared: bool = True
    """A taken key counts as delivered only if its content is ours."""
    same_is_delivered: bool = True
    """A taken key with our content counts as delivered."""

    # Recording.
    record_row_lock: bool = True
    """The stream's row is locked while a delivery is recorded."""
    recorded_once: bool = True
    """A delivery that somebody else has recorded is left alone."""
    record_in_order: bool = True
    """A delivery is recorded only right after the one before it."""
    delivered_is_final: bool = True
    """The trigger `sealed_once`: a delivered row refuses every change."""
    durable_record: bool = True
    """The record's commit waits for the disk."""

    # Leases.
    lease_expires: bool = True
    """The lease of a worker that is gone becomes free."""
    lease_not_trusted: bool = True
    """Holding a lease spares a worker none of the checks above."""

    def without(self, *names: str) -> Guards:
        """These guards, some of them switched off."""
        return replace(self, **dict.fromkeys(names, False))


GUARDS = tuple(guard.name for guard in fields(Guards))


@dataclass(frozen=True)
class Settings:
    """The size of the world. ``appends`` has the events of each transaction.

    ``server_crashes`` bounds how often the server goes down; workers crash without bound.
    ``asynchronous`` lets commits of writers return before they are on disk. ``rolled_back``
    positions were handed out before the beginning, to a transaction that is over; the disk does
    not know. ``foreign`` puts an object of somebody else under the first key. ``ticks_in_turns``
    lets a worker's fence go on while the worker delivers.
    """

    appends: tuple[int, ...] = (1, 1)
    workers: int = 2
    prepared: bool = False
    server_crashes: int = 0
    asynchronous: bool = False
    rolled_back: int = 0
    foreign: bool = False
    ticks_in_turns: bool = True
    guards: Guards = Guards()
