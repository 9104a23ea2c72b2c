"""What to compare, and who is told how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from auditstore.errors import ConfigurationError

Level = Literal["files", "events"]


@dataclass(frozen=True, slots=True)
class Scope:
    """The level, and the half-open interval of ``recorded_at``, rounded out to whole files.

    ``values`` asks for the values of fields that differ, not only their names.
    """

    level: Level = "files"
    since: datetime | None = None
    until: datetime | None = None
    values: bool = False

    def __post_init__(self) -> None:
        """Refuse an interval that no event can lie in, or that is not told in a time zone."""
        for bound in (self.since, self.until):
            if bound is not None and bound.tzinfo is None:
                raise ConfigurationError(
                    f"{bound.isoformat()} has no time zone", hint="Give aware datetimes."
                )
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ConfigurationError(
                f"the interval from {self.since.isoformat()} to {self.until.isoformat()} is empty",
                hint="--until is exclusive and must be later than --since.",
            )

    @property
    def is_bounded(self) -> bool:
        """Whether only some of a stream's files may be compared."""
        return self.since is not None or self.until is not None

    def holds(self, moment: datetime) -> bool:
        """Whether an event recorded at ``moment`` lies in the interval."""
        return (self.since is None or moment >= self.since) and (
            self.until is None or moment < self.until
        )


class Progress(Protocol):
    """Told now and then how far a comparison is."""

    def listing(self, objects: int) -> None:
        """So many objects are listed; how many there are is not known."""

    def comparing(self, done: int, total: int, bytes_read: int) -> None:
        """So many of the files are compared, and so many bytes were read for it."""


class Silent:
    """Progress that nobody watches."""

    def listing(self, objects: int) -> None:
        """Say nothing."""

    def comparing(self, done: int, total: int, bytes_read: int) -> None:
        """Say nothing."""
