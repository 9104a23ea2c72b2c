"""The console's way to the accounts: who signs in, who is signed in, what they have read."""

from __future__ import annotations

from sqlalchemy import Connection, Engine

from auditstore import accounts, signing_in
from auditstore.sql import accounts as sql
from auditstore.sql.failures import translated
from auditstore.web.console.gate import Entered
from auditstore.web.console.pages import Person


class AccountsGate:
    """Accounts and sessions of the store's own database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def enter(self, name: str, password: str, address: str) -> str:
        """The token of a new session; SignInRefused says why not."""
        return signing_in.sign_in(self._engine, name=name, password=password, address=address)

    def entered(self, token: str) -> Entered | None:
        """Whose session this is, or ``None`` where there is none or it is over."""
        with translated(), self._engine.connect() as connection:
            user = signing_in.signed_in(connection, token)
        if user is None:
            return None
        # Only who has the cookie can say it; a page of another site has not.
        csrf = accounts.digest(f"csrf {token}").hex()
        return Entered(Person(user.name, user.role, user.flows), csrf)

    def leave(self, token: str) -> None:
        """End a session."""
        with translated(), self._engine.begin() as connection:
            signing_in.sign_out(connection, token)

    def record_reading(
        self, connection: Connection, person: Person, flow_id: str, event_id: str
    ) -> None:
        """Record that a person has opened an event, in the caller's transaction."""
        sql.insert_reading(connection, person.name, flow_id, event_id)
