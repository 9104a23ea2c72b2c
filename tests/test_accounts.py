"""Users, sessions and API keys: what opens, what does not, and what is kept of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from auditstore import accounts, signing_in
from auditstore.errors import ConfigurationError, NotFound, SignInRefused
from auditstore.sql import accounts as sql

PASSWORD = "correct horse battery"


def add_user(connection: Connection, name: str = "ada", **changes: object) -> accounts.User:
    """A viewer of everything."""
    given: dict[str, object] = {"password": PASSWORD, "role": "viewer", "actor": "test"}
    return accounts.add_user(connection, name=name, **(given | changes))  # type: ignore[arg-type]  # test's kwargs


@pytest.fixture
def user(engine: Engine) -> accounts.User:
    """A user who is there."""
    with engine.begin() as connection:
        return add_user(connection)


def sign_in(engine: Engine, password: str = PASSWORD, *, name: str = "ada", at: str = "1.1") -> str:
    """A session's token."""
    return signing_in.sign_in(engine, name=name, password=password, address=at)


def whose(engine: Engine, token: str) -> str | None:
    """The name of the user whose session it is."""
    with engine.connect() as connection:
        found = signing_in.signed_in(connection, token)
    return None if found is None else found.name


def everything(engine: Engine) -> str:
    """All that the accounts' tables and the record of changes hold, as text."""
    with engine.connect() as connection:
        return "\n".join(
            str(
                connection.execute(sa.text(f"SELECT t::text FROM auditstore.{table} t")).all()
            )  # own names
            for table in ("users", "sessions", "api_keys", "changes", "login_failures")
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"password": "short"}, "the password has 5 characters"),
        ({"password": "x" * 1025}, "the password has 1025 characters"),
        ({"name": "a b"}, "name cannot be used"),
        ({"name": ""}, "name cannot be used"),
        ({"flows": ["a\0b"]}, "is no flow's id"),
        ({"flows": [""]}, "is no flow's id"),
    ],
)
def test_what_cannot_be_a_user(engine: Engine, changes: dict[str, object], message: str) -> None:
    """Refused with a reason; nothing is added."""
    with engine.begin() as connection:
        with pytest.raises(ConfigurationError, match=message):
            add_user(connection, **changes)  # type: ignore[arg-type]  # test's kwargs
        assert accounts.find_users(connection) == []


def test_a_name_is_used_once(engine: Engine, user: accounts.User) -> None:
    """Whoever is there keeps his password."""
    with engine.begin() as connection, pytest.raises(ConfigurationError, match="already a user"):
        add_user(connection, password="another long password")
    assert whose(engine, sign_in(engine)) == user.name


def test_a_session_is_its_users_until_it_is_ended(engine: Engine, user: accounts.User) -> None:
    """Two sessions of one user are independent; a made-up token is nobody's."""
    one, two = sign_in(engine), sign_in(engine)
    assert one != two
    assert whose(engine, one) == whose(engine, two) == user.name
    with engine.begin() as connection:
        signing_in.sign_out(connection, one)
    assert whose(engine, one) is None
    assert whose(engine, two) == user.name
    assert whose(engine, "made up") is None


def test_a_session_ends_by_the_servers_clock(engine: Engine, user: accounts.User) -> None:
    """Twelve hours after it began."""
    token = sign_in(engine)
    assert whose(engine, token) == user.name
    with engine.begin() as connection:
        (left,) = connection.execute(
            sa.text("UPDATE auditstore.sessions SET expires_at = clock_timestamp() - interval '1s'"
                    " RETURNING expires_at - created_at")
        ).scalars()  # fmt: skip
    assert left < timedelta(hours=12)
    assert whose(engine, token) is None


@pytest.mark.parametrize("act", ["password", "disable"])
def test_a_new_password_or_disabling_ends_every_session(
    engine: Engine, user: accounts.User, act: str
) -> None:
    """Whoever had the old password is out at once."""
    token = sign_in(engine)
    with engine.begin() as connection:
        if act == "password":
            accounts.set_password(connection, user.name, "another long password", actor="test")
        else:
            accounts.set_enabled(connection, user.name, enabled=False, actor="test")
    assert whose(engine, token) is None
    with pytest.raises(SignInRefused):
        sign_in(engine)
    with engine.begin() as connection:
        accounts.set_enabled(connection, user.name, enabled=True, actor="test")
    assert whose(engine, token) is None


def test_a_refusal_does_not_tell_what_was_wrong(engine: Engine, user: accounts.User) -> None:
    """An unknown name, a wrong password, a disabled user: the same words."""
    told = set()
    with engine.begin() as connection:
        accounts.set_enabled(connection, add_user(connection, "bob").name, enabled=False, actor="t")
    for name, password in [(user.name, "wrong"), ("nobody", PASSWORD), ("bob", PASSWORD),
                           ("\0", PASSWORD), (user.name, "x" * 5000)]:  # fmt: skip
        with pytest.raises(SignInRefused) as error:
            sign_in(engine, password, name=name)
        told.add((error.value.message, error.value.hint))
    assert len(told) == 1


def test_many_failures_close_the_door_for_a_while(engine: Engine, user: accounts.User) -> None:
    """For a name from one address; from elsewhere its owner still comes in, and time opens it."""
    for _ in range(5):
        with pytest.raises(SignInRefused, match="wrong"):
            sign_in(engine, "wrong")
    with pytest.raises(SignInRefused, match="too many"):
        sign_in(engine)
    assert whose(engine, sign_in(engine, at="2.2")) == user.name
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE auditstore.login_failures SET failed_at = failed_at"
                                   " - interval '16 minutes'"))  # fmt: skip
    assert whose(engine, sign_in(engine)) == user.name


def test_success_forgets_the_failures(engine: Engine, user: accounts.User) -> None:
    """Four slips a day add up to nothing."""
    for _ in range(3):
        for _ in range(4):
            with pytest.raises(SignInRefused, match="wrong"):
                sign_in(engine, "wrong")
        assert whose(engine, sign_in(engine)) == user.name


def test_a_key_opens_until_it_is_revoked_or_over(engine: Engine) -> None:
    """It is shown once; three keys, of which one was revoked and one has expired."""
    made = []
    with engine.begin() as connection:
        for name, lasts in [("a", None), ("b", timedelta(days=1)), ("c", timedelta(seconds=-1))]:
            made.append(accounts.add_key(
                connection, name=name, role="viewer", flows=["f"], lasts=lasts, actor="test"
            ))  # fmt: skip
        found = [accounts.key_for(connection, key) for _, key in made]
        assert [each and each.name for each in found] == ["a", "b", None]
        assert found[0] is not None
        assert found[0].flows == frozenset({"f"})
        accounts.revoke_key(connection, made[0][0].key_id, actor="test")
        accounts.revoke_key(connection, made[0][0].key_id, actor="test")
        assert accounts.key_for(connection, made[0][1]) is None
        assert accounts.key_for(connection, "") is None
        assert len(accounts.find_keys(connection)) == 3
        with pytest.raises(NotFound):
            accounts.revoke_key(connection, 99, actor="test")


def test_no_password_token_or_key_is_kept(engine: Engine, user: accounts.User) -> None:
    """Whoever reads the whole database can use none of it; who changed what is there."""
    token = sign_in(engine)
    with engine.begin() as connection:
        _, key = accounts.add_key(
            connection, name="k", role="viewer", lasts=None, actor="somebody"
        )  # fmt: skip
        accounts.set_password(connection, user.name, "another long password", actor="somebody")
    kept = everything(engine)
    for secret in (PASSWORD, "another long password", token, key):
        assert secret not in kept
    assert "$argon2id$" in kept
    for word in ("somebody", "api key", "password", "user"):
        assert word in kept


def test_who_has_read_what_cannot_be_altered(engine: Engine) -> None:
    """The record of readings is append only."""

    with engine.begin() as connection:
        sql.insert_reading(connection, "ada", "f", "6924f1c0a1b2c3d4e5f60718")
    for statement in (
        "UPDATE auditstore.readings SET actor = 'x'",
        "DELETE FROM auditstore.readings",
        "TRUNCATE auditstore.readings",
    ):
        with pytest.raises(sa.exc.DBAPIError), engine.begin() as connection:
            connection.execute(sa.text(statement))
