"""What the console asks of whoever knows the accounts: who is this, and may they come in?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection

from auditstore.web.console.pages import Person


@dataclass(frozen=True, slots=True)
class Entered:
    """A person who is signed in, and the token that their forms must carry."""

    person: Person
    csrf: str


class Gate(Protocol):
    """Accounts and sessions."""

    def enter(self, name: str, password: str, address: str) -> str:
        """The token of a new session; AuditStoreError says why not."""

    def entered(self, token: str) -> Entered | None:
        """Whose session this is, or ``None`` where there is none or it is over."""

    def leave(self, token: str) -> None:
        """End a session."""

    def record_reading(
        self, connection: Connection, person: Person, flow_id: str, event_id: str
    ) -> None:
        """Record that a person has opened an event, in the caller's transaction."""
