"""The events that every benchmark uses: LeadConduit-like, 2 to 5 KB, 3.6 KB on average, seeded."""

from __future__ import annotations

from collections.abc import Iterator

from auditstore.demo.flow_engine import lead_events

SMALLEST, LARGEST = 2_000, 5_000
MEAN, MEAN_WITHIN = 3_600, 150


def events(seed: int, count: int, flow_id: str, *, start: float) -> list[bytes]:
    """``count`` events of one flow from the second ``start`` on; same arguments, same bytes.

    Refuses to measure with others than it says: sizes outside of 2 to 5 KB, or another mean.
    """
    made = list(lead_events(seed, count, flow_id, start=start))
    sizes = [len(event) for event in made]
    if min(sizes) < SMALLEST or max(sizes) > LARGEST:
        raise SystemExit(f"events of {min(sizes)} to {max(sizes)} bytes")
    if count >= 1000 and abs(sum(sizes) / count - MEAN) > MEAN_WITHIN:
        raise SystemExit(f"events of {sum(sizes) / count:.0f} bytes on average")
    return made


def batches(seed: int, size: int, flow_id: str, *, start: float) -> Iterator[list[bytes]]:
    """Batch after batch without end, no event twice."""
    number = 0
    while True:
        number += 1
        # A thousand seconds each: the stream takes 20 leads a second.
        yield events(seed + number, size, f"{flow_id}-{number}", start=start + 1000 * number)
