"""Credentials: what is kept, what is shown, and how keys and secrets change."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import Connection, Engine, text

from auditstore import credentials, streams
from auditstore.credentials import Vault
from auditstore.errors import ConfigurationError, NotFound
from auditstore.sql.streams import list_changes, newest_change
from auditstore.vault import new_key

S3 = {"access_key_id": "AKIAEXAMPLE000WXYZ", "secret_access_key": "recognisable-secret"}
AZURE_KEY = "DefaultEndpointsProtocol=https;AccountName=leadarchive;AccountKey=cmVjb2duaXNhYmxl"


@pytest.fixture
def vault() -> Vault:
    """A vault with one key."""
    return Vault([new_key()])


def add_s3(connection: Connection, vault: Vault, name: str = "aws") -> credentials.Credential:
    """Keep the example secret."""
    return credentials.add(connection, vault, name=name, kind="s3", secret=S3, actor="someone@here")


def test_a_secret_comes_back_as_it_was_given(engine: Engine, vault: Vault) -> None:
    """What is added under a name is what a stream gets by its id."""
    with engine.begin() as connection:
        added = add_s3(connection, vault)
        assert credentials.secret_of(connection, vault, added.credential_id) == S3


def test_no_credential_is_no_secret_and_needs_no_key(engine: Engine) -> None:
    """A stream without a credential works where no key was ever made."""
    with engine.connect() as connection:
        assert credentials.secret_of(connection, Vault(()), None) is None


def test_only_a_masked_identity_is_shown(engine: Engine, vault: Vault) -> None:
    """The hint has the last four characters of a key id, or the account's name."""
    with engine.begin() as connection:
        assert add_s3(connection, vault).hint == "key id ...WXYZ"
        azure = credentials.add(
            connection, vault, name="blob", kind="azure",
            secret={"connection_string": AZURE_KEY}, actor="someone@here",
        )  # fmt: skip
        assert azure.hint == "account leadarchive"


def test_no_row_of_any_table_holds_a_secret_in_clear(engine: Engine, vault: Vault) -> None:
    """Neither the credential's row nor the record of the change."""
    with engine.begin() as connection:
        add_s3(connection, vault)
        credentials.rotate(connection, vault, "aws", S3 | {"session_token": "token-too"}, "me")
        for table in ("credentials", "changes"):
            rows = connection.execute(text(f"SELECT t::text FROM auditstore.{table} t")).scalars()
            everything = "".join(rows)
            assert "aws" in everything
            assert "recognisable" not in everything
            assert "token-too" not in everything
            assert b"recognisable-secret".hex() not in everything


def test_changes_are_recorded_without_secrets(engine: Engine, vault: Vault) -> None:
    """Who added, rotated and removed, and which fields there were."""
    with engine.begin() as connection:
        added = add_s3(connection, vault)
        credentials.rotate(
            connection, vault, "aws", S3 | {"access_key_id": "AKIAEXAMPLE0001111"}, "other@here"
        )
        credentials.remove(connection, "aws", "third@here")
        changes = list_changes(connection, "credential", added.credential_id)
    assert [(each.actor, each.action) for each in changes] == [
        ("someone@here", "add"), ("other@here", "rotate"), ("third@here", "remove"),
    ]  # fmt: skip
    assert changes[0].before is None
    assert changes[0].after == {
        "name": "aws", "kind": "s3", "hint": "key id ...WXYZ",
        "fields": ["access_key_id", "secret_access_key"],
    }  # fmt: skip
    assert changes[1].after["hint"] == "key id ...1111"
    assert changes[2].after is None


def test_rotating_moves_the_daemons_cue(engine: Engine, vault: Vault) -> None:
    """A daemon that looks at the newest change sees a rotated secret at once."""
    with engine.begin() as connection:
        add_s3(connection, vault)
        before = newest_change(connection)
        credentials.rotate(connection, vault, "aws", S3, "me")
        after = newest_change(connection)
    assert before is not None
    assert after is not None
    assert after > before


def test_keys_rotate_without_losing_a_secret(engine: Engine) -> None:
    """Old key first, both, re-encrypt, and then the new key alone opens everything."""
    old, new = new_key(), new_key()
    with engine.begin() as connection:
        added = add_s3(connection, Vault([old]))
        both = Vault([new, old])
        assert credentials.secret_of(connection, both, added.credential_id) == S3
        with pytest.raises(ConfigurationError, match="opens the credential aws"):
            credentials.secret_of(connection, Vault([new]), added.credential_id)
        assert credentials.reencrypt(connection, both, "me") == ["aws"]
        assert credentials.secret_of(connection, Vault([new]), added.credential_id) == S3
        with pytest.raises(ConfigurationError, match="opens the credential aws"):
            credentials.secret_of(connection, Vault([old]), added.credential_id)


def test_reencrypting_is_all_or_nothing(engine: Engine) -> None:
    """One secret that no key opens leaves every other as it was."""
    first, second, newest = new_key(), new_key(), new_key()
    with engine.begin() as connection:
        kept = add_s3(connection, Vault([first]), "one")
        add_s3(connection, Vault([second]), "two")
    with (
        pytest.raises(ConfigurationError, match="opens the credential two"),
        engine.begin() as connection,
    ):
        credentials.reencrypt(connection, Vault([newest, first]), "me")
    with engine.connect() as connection:
        assert credentials.secret_of(connection, Vault([first]), kept.credential_id) == S3


def test_a_secret_whose_key_is_lost_can_be_given_anew(engine: Engine, vault: Vault) -> None:
    """Rotating needs the newest key only."""
    with engine.begin() as connection:
        added = add_s3(connection, Vault([new_key()]))
        credentials.rotate(connection, vault, "aws", S3, "me")
        assert credentials.secret_of(connection, vault, added.credential_id) == S3


def test_a_credential_in_use_is_not_removed(engine: Engine, vault: Vault) -> None:
    """The refusal names the stream, and so it goes also while the stream is disabled."""
    with engine.begin() as connection:
        added = add_s3(connection, vault)
        stream = streams.add(
            connection,
            streams.NewStream(
                flow_id="f", url="s3://some-bucket", credential_id=added.credential_id,
                enabled=False,
            ),
            actor="me",
        )  # fmt: skip
        with pytest.raises(ConfigurationError, match=f"used by stream {stream.stream_id}"):
            credentials.remove(connection, "aws", "me")


def test_names_are_taken_once(engine: Engine, vault: Vault) -> None:
    """A second credential of a name is refused, and an unknown name is not found."""
    with engine.begin() as connection:
        add_s3(connection, vault)
        with pytest.raises(ConfigurationError, match="already a credential aws"):
            add_s3(connection, vault)
        with pytest.raises(NotFound, match="'absent'"):
            credentials.get_by_name(connection, "absent")


@pytest.mark.parametrize("name", ["", "a b", "-a", "x" * 64, "naïve", "a\nb"])
def test_unusable_names_are_refused(engine: Engine, vault: Vault, name: str) -> None:
    """A name can stand in a command and in a message."""
    with engine.begin() as connection, pytest.raises(ConfigurationError, match="name cannot"):
        add_s3(connection, vault, name)


@pytest.mark.parametrize(
    ("kind", "secret", "message"),
    [
        ("s3", {"access_key_id": "a"}, "lacks secret_access_key"),
        ("s3", S3 | {"external_id": "x"}, "no role_arn"),
        ("s3", S3 | {"recognisable": "x"}, "a field that s3 credentials do not know"),
        ("s3", S3 | {"session_token": " "}, "session_token is empty"),
        ("s3", S3 | {"session_token": "recognisable\nsecond"}, "session_token holds a line break"),
        ("azure", {}, "do not go together"),
        ("azure", {"account_url": "https://a.example"}, "do not go together"),
        ("azure", {"connection_string": "recognisable"}, "no AccountKey"),
        ("azure", {"account_url": "ftp://a", "sas_token": "recognisable"}, "not an HTTP URL"),
        (
            "azure",
            {"account_url": "https://a.example/?sig=recognisable", "sas_token": "s"},
            "has a query",
        ),
        ("gcs", {}, "kind is not known"),
    ],
)
def test_incomplete_secrets_are_refused_without_being_quoted(
    engine: Engine, vault: Vault, kind: str, secret: dict[str, str], message: str
) -> None:
    """The message says what is wrong, and repeats nothing that was given."""
    with engine.begin() as connection, pytest.raises(ConfigurationError, match=message) as caught:
        credentials.add(connection, vault, name="x", kind=kind, secret=secret, actor="me")
    assert "recognisable" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    "secret",
    [
        {"connection_string": AZURE_KEY},
        {"connection_string": "BlobEndpoint=https://a.example;SharedAccessSignature=sv=1&sig=2"},
        {"account_url": "https://leadarchive.blob.core.windows.net", "sas_token": "sv=1&sig=2"},
        {"account_url": "https://leadarchive.blob.core.windows.net", "account_key": "a2V5"},
    ],
)
def test_every_form_of_an_azure_secret_is_taken(
    engine: Engine, vault: Vault, secret: dict[str, str]
) -> None:
    """Connection strings with a key or a signature, and an account's URL with either."""
    with engine.begin() as connection:
        added = credentials.add(
            connection, vault, name="x", kind="azure", secret=secret, actor="me"
        )
        assert credentials.secret_of(connection, vault, added.credential_id) == secret


def test_without_keys_the_error_says_how_to_make_one(engine: Engine) -> None:
    """Storing a secret without AUDITSTORE_SECRET_KEYS names the command and the variable."""
    with engine.begin() as connection, pytest.raises(ConfigurationError) as caught:
        add_s3(connection, Vault(()))
    assert "auditstore credential new-key" in caught.value.hint
    assert "AUDITSTORE_SECRET_KEYS" in caught.value.hint


def test_a_malformed_key_is_told_by_its_place_not_its_text() -> None:
    """Keys are secrets too."""
    with pytest.raises(ConfigurationError, match="key number 2") as caught:
        Vault([new_key(), "recognisable-key"])
    assert "recognisable" not in caught.value.message + caught.value.hint
    assert caught.value.__cause__ is None


def test_nothing_secret_in_reprs_or_logs(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """Not even with every logger at its most talkative, the database driver's included."""
    key = new_key()
    vault = Vault([key])
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "sqlalchemy.engine")
    with engine.begin() as connection:
        added = add_s3(connection, vault)
        credentials.secret_of(connection, vault, added.credential_id)
    assert "auditstore.credentials" in caplog.text
    shown = caplog.text + repr(vault) + repr(added)
    assert "recognisable" not in shown
    assert key not in shown
