"""What each answer of Azure Blob Storage becomes: every row of the delivery tables."""

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import self_signed
from support.fake_http_store import Answer, FakeStore, running_fake_store
from support.stores import new_object, read_all, unique_name

from auditstore.destinations import Destination
from auditstore.errors import AuditStoreError, StoreRefused, StoreUnavailable
from exporters.stores import open_store
from exporters.stores.azure import AzureStore
from exporters.stores.azure_client import container_client

SAS = "sv=2023-11-03&sp=rwlc&sig=c2VjcmV0LXNpZw%3D%3D"


def open_fake(
    server: FakeStore, *, attempts: int = 1, read_timeout: float = 20, url: str | None = None
) -> AzureStore:
    destination = Destination("azure", unique_name("container"), "logs")
    secret = {"account_url": url or f"{server.url}/account", "sas_token": SAS}
    client = container_client(
        destination, secret=secret, attempts=attempts, read_timeout=read_timeout
    )
    return AzureStore(client, destination, secrets=tuple(secret.values()))


@pytest.fixture
def server() -> Iterator[FakeStore]:
    with running_fake_store("azure") as fake:
        yield fake


@pytest.fixture
def store(server: FakeStore) -> Iterator[AzureStore]:
    opened = open_fake(server)
    yield opened
    opened.close()


def failure_of_put(store: AzureStore) -> AuditStoreError:
    with pytest.raises(AuditStoreError) as caught:
        store.put_if_absent(new_object("logs/x"))
    shown = f"{caught.value.message} {caught.value.hint} {caught.value.__cause__!r}"
    assert "c2VjcmV0" not in shown
    return caught.value


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "InternalError"),
        (500, "OperationTimedOut"),
        (503, "ServerBusy"),
        (429, "TooManyRequests"),
        (409, "ContainerBeingDeleted"),
        (400, "Md5Mismatch"),
    ],
)
def test_passing_answers(store: AzureStore, server: FakeStore, status: int, code: str) -> None:
    """What passes by itself is raised as unavailable, so that it is tried again for ever."""
    server.script = [Answer(status, code)]
    error = failure_of_put(store)
    assert isinstance(error, StoreUnavailable)
    assert code in error.message
    assert store.put_if_absent(new_object("logs/x")).created


def test_a_conflict_without_a_name_passes(store: AzureStore, server: FakeStore) -> None:
    """An answer that lost its headers on the way does not tell whether the name is taken."""
    server.script = [Answer(409)]
    assert isinstance(failure_of_put(store), StoreUnavailable)


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, "AuthenticationFailed", "account key or SAS"),
        (403, "AuthorizationFailure", "firewall"),
        (403, "AuthorizationPermissionMismatch", "auditstore doctor"),
        (403, "AuthorizationSourceIPMismatch", "address"),
        (401, "InvalidAuthenticationInfo", "rotate"),
        (401, "NoAuthenticationInformation", "rotate"),
        (403, "AccountIsDisabled", "owner"),
        (403, "InsufficientAccountPermissions", "owner"),
        (404, "ContainerNotFound", "Create the container"),
        (409, "ContainerDisabled", "owner"),
        (403, "KeyVaultEncryptionKeyNotFound", "Key Vault"),
        (403, "KeyVaultAccessTokenCannotBeAcquired", "owner"),
        (403, "KeyBasedAuthenticationNotPermitted", "managed identity"),
        (400, "InvalidHeaderValue", "documentation"),
        (501, "NotImplemented", "documentation"),
    ],
)
def test_refusals(store: AzureStore, server: FakeStore, status: int, code: str, hint: str) -> None:
    """What an operator must change is refused with the store's own code and what to do."""
    server.script = [Answer(status, code)]
    error = failure_of_put(store)
    assert isinstance(error, StoreRefused)
    assert error.code == code
    assert code in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (409, "BlobAlreadyExists"),
        (409, "BlobImmutableDueToPolicy"),
        (409, "BlobImmutableDueToLegalHold"),
        (403, "UnauthorizedBlobOverwrite"),
        (412, "ConditionNotMet"),
    ],
)
def test_the_name_is_taken(store: AzureStore, server: FakeStore, status: int, code: str) -> None:
    """Whatever Azure calls it, a blob that is there already is for the caller to compare."""
    server.script = [Answer(status, code)]
    assert not store.put_if_absent(new_object("logs/x")).created


def test_a_firewall_without_azures_code_is_refused(store: AzureStore, server: FakeStore) -> None:
    """A bare 403 from something in between is the operator's."""
    server.script = [Answer(403)]
    error = failure_of_put(store)
    assert isinstance(error, StoreRefused)
    assert error.code == "AuthorizationFailure"


def test_no_secret_of_a_connection_string_in_messages(server: FakeStore) -> None:
    """A server in between that repeats the key does not get it into our message."""
    key = "aHVudGVyMg=="
    text = f"AccountName=account;AccountKey={key};BlobEndpoint={server.url}/account"
    store = open_store(Destination("azure", "events"), secret={"connection_string": text})
    assert isinstance(store, AzureStore)
    xml = {"Content-Type": "application/xml"}
    words = f"<Error><Message>you sent {key}</Message></Error>"
    server.script = [Answer(400, headers=xml, text=words)]
    error = failure_of_put(store)
    assert isinstance(error, StoreRefused)
    assert key not in error.message + error.hint
    assert "you sent ***" in error.message
    store.close()


def test_a_bare_503_passes(store: AzureStore, server: FakeStore) -> None:
    """A proxy's empty 503 passes."""
    server.script = [Answer(503)]
    assert isinstance(failure_of_put(store), StoreUnavailable)


def test_an_answer_that_the_sdk_cannot_read(store: AzureStore, server: FakeStore) -> None:
    """The SDK trips over a refusal without words; the status and code are told all the same."""
    server.script = [Answer(403, "AuthenticationFailed", "")]
    error = failure_of_put(store)
    assert isinstance(error, StoreRefused)
    assert error.code == "AuthenticationFailed"


def test_a_connection_that_is_cut_passes(store: AzureStore, server: FakeStore) -> None:
    """A reset while waiting for the answer passes."""
    server.script = [Answer(then="cut")]
    assert isinstance(failure_of_put(store), StoreUnavailable)


def test_a_timeout_passes(server: FakeStore) -> None:
    """A server that does not answer in time is tried again later."""
    store = open_fake(server, read_timeout=0.3)
    server.script = [Answer(then="hang")]
    assert isinstance(failure_of_put(store), StoreUnavailable)
    store.close()


def test_an_unknown_host_passes(server: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS that fails passes."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    store = open_fake(server, url="https://account.blob.example")
    assert isinstance(failure_of_put(store), StoreUnavailable)
    store.close()


def test_a_certificate_that_is_not_trusted_is_refused(tmp_path: Path) -> None:
    """A wrong certificate does not mend itself: the operator is told."""
    with running_fake_store("azure", tls=self_signed(tmp_path)) as server:
        store = open_fake(server)
        error = failure_of_put(store)
        assert isinstance(error, StoreRefused)
        assert error.code == "CertificateNotTrusted"
        store.close()


def test_an_object_stored_before_the_answer_was_lost(server: FakeStore) -> None:
    """Stored, cut off, and 409 on the retry: not created, for the caller to compare."""
    store = open_fake(server, attempts=2)
    server.script = [Answer(then="cut", store=True)]
    assert not store.put_if_absent(new_object("logs/x", b"once")).created
    assert [request.method for request in server.requests] == ["PUT", "PUT"]
    assert read_all(store, "logs/x") == b"once"
    store.close()


def test_a_body_corrupted_on_the_way_is_not_stored(store: AzureStore, server: FakeStore) -> None:
    """The MD5 that is sent lets the server refuse it; that passes, and nothing is there."""
    server.script = [Answer(then="corrupt")]
    error = failure_of_put(store)
    assert isinstance(error, StoreUnavailable)
    assert "Md5Mismatch" in error.message
    assert "logs/x" not in server.objects


def test_what_a_write_sends(store: AzureStore, server: FakeStore) -> None:
    """One PUT, however large, carries condition, checksum, type, encoding and metadata."""
    new = new_object(
        "logs/x",
        b"x" * 70_000_000,
        content_type="application/x-ndjson",
        content_encoding="gzip",
        metadata={"content-sha256": "ab"},
    )
    store.put_if_absent(new)
    (request,) = server.requests
    expected = {
        "if-none-match": "*",
        "x-ms-blob-content-type": "application/x-ndjson",
        "x-ms-blob-content-encoding": "gzip",
        "x-ms-meta-content_sha256": "ab",
        "x-ms-blob-type": "BlockBlob",
    }
    assert {name: request.headers.get(name) for name in expected} == expected
    assert "content-md5" in request.headers


def test_a_download_that_breaks_off_passes(store: AzureStore, server: FakeStore) -> None:
    """Half a body never looks like a whole one."""
    store.put_if_absent(new_object("logs/x", b"x" * 3_000_000))
    server.script = [Answer(then="half")] * 5
    with pytest.raises(StoreUnavailable):
        read_all(store, "logs/x")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(503, "ServerBusy"), StoreUnavailable),
        (Answer(404, "ContainerNotFound"), StoreRefused),
        (Answer(then="cut"), StoreUnavailable),
    ],
)
def test_failures_of_reads_and_listings(
    store: AzureStore, server: FakeStore, answer: Answer, kind: type[AuditStoreError]
) -> None:
    """Describing, reading and listing translate as writing does."""
    for call in (
        lambda: store.head("logs/x"),
        lambda: store.read("logs/x"),
        lambda: list(store.list("logs/")),
    ):
        server.script = [answer]
        with pytest.raises(kind):
            call()


def test_nothing_secret_is_logged(
    store: AzureStore, server: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Even with the root logger at DEBUG neither URLs nor headers are written."""
    caplog.set_level(logging.DEBUG)
    store.put_if_absent(new_object("logs/x"))
    server.script = [Answer(403, "AuthenticationFailed")]
    failure_of_put(store)
    assert "c2VjcmV0" not in caplog.text
