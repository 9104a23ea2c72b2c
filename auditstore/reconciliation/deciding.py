"""What is to be done about one ledger row. Decided once, for its turn and for who reads ahead."""

from __future__ import annotations

from dataclasses import dataclass

from auditstore.ledger import Delivery, LedgerFile
from auditstore.objects import ObjectInfo
from auditstore.reconciliation.job import Job
from auditstore.reconciliation.reading import Depth


@dataclass(frozen=True, slots=True)
class Case:
    """A row, and how it is gone about.

    ``delivery`` is ``None`` unless the file was delivered by the time we looked, so that the
    listing must hold it. ``compares`` is false where the listing was all that was wanted and shows
    the file as it was. ``info`` is the file's object as it was listed, ``None`` where it is not
    there or the file has many. ``reads`` is what has to be read, ``None`` if nothing.
    """

    row: LedgerFile
    delivery: Delivery | None = None
    compares: bool = False
    info: ObjectInfo | None = None
    reads: Depth | None = None


def decide(job: Job, row: LedgerFile) -> Case:
    """Look at the listing, which knows the object from then on; ask the store beyond its reach."""
    sealed, delivery = row.sealed, row.delivery
    if delivery is None or sealed.sequence > job.stream.delivered_sequence:
        return Case(row)
    compares = job.part.compares(sealed.sequence)
    if sealed.format == "json":
        # Old ones are left to the sample: the ledger has no size and no ETag of each object, so
        # at both levels they are read.
        return Case(row, delivery, compares, reads="objects" if compares else None)
    info = job.look_up(sealed.object_key)
    if not compares and _looks_untouched(info, delivery):
        return Case(row, delivery)
    depth: Depth | None = "lines" if job.reads_events else "stored"
    # What is compared again is read: a store's word for it was taken the first time.
    told = not job.reads_events and not job.part.is_again(sealed.sequence)
    if info is None or (told and _as_listed(info, delivery)):
        depth = None
    return Case(row, delivery, compares=True, info=info, reads=depth)


def _looks_untouched(info: ObjectInfo | None, delivery: Delivery) -> bool:
    if info is None or info.size != delivery.object_bytes:
        return False
    etags = {info.etag, delivery.etag}
    return None in etags or len(etags) == 1


def _as_listed(info: ObjectInfo, delivery: Delivery) -> bool:
    """An equal ETag names the very write that was recorded; a folder has none."""
    return (
        info.etag is not None and info.etag == delivery.etag and info.size == delivery.object_bytes
    )
