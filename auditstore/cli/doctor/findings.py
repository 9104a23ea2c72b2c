"""What a check returns: one thing that was looked at, how it is, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from auditstore.errors import AuditStoreError, DatabaseRefused

#: ``note`` is information; ``unknown`` could not be looked at.
Result = Literal["ok", "note", "unknown", "warning", "fails"]


class Symptom(StrEnum):
    """What brings an operator here."""

    NO_FILES = "no files appear"
    INCOMPLETE = "events look incomplete"
    DENIED = "access denied"


NO_FILES, INCOMPLETE, DENIED = Symptom.NO_FILES, Symptom.INCOMPLETE, Symptom.DENIED


@dataclass(frozen=True, slots=True)
class Finding:
    """``check`` is a stable name; ``explains`` the symptoms that a bad result would cause."""

    check: str
    result: Result
    message: str
    hint: str = ""
    explains: tuple[Symptom, ...] = ()

    @property
    def is_bad(self) -> bool:
        """Whether it explains something."""
        return self.result in {"warning", "fails"}


def failure(check: str, error: AuditStoreError, *explains: Symptom) -> Finding:
    """A check that found what the error says."""
    return Finding(check, "fails", error.message, error.hint, explains)


def unknown(check: str, why: str, hint: str = "") -> Finding:
    """A check that could not be made."""
    return Finding(check, "unknown", f"not known: {why}", hint)


class Findings(list[Finding]):
    """The findings of some checks, in the order in which they were made."""

    @contextmanager
    def looking(self, check: str, *explains: Symptom) -> Iterator[None]:
        """What goes wrong within becomes this check's finding, and the next check is made.

        A right that is lacking has a check of its own, so here it only says what is not known.
        """
        try:
            yield
        except DatabaseRefused as error:
            self.append(unknown(check, error.message))
        except AuditStoreError as error:
            self.append(failure(check, error, *explains))
