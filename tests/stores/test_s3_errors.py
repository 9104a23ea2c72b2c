"""What each answer of an S3 server becomes: every row of the delivery tables."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.certificates import self_signed
from support.fake_http_store import Answer, FakeStore, running_fake_store
from support.stores import S3_SECRET, new_object, race, read_all, unique_name

from auditstore.destinations import Destination
from auditstore.errors import AuditStoreError, StoreRefused, StoreUnavailable
from exporters.stores.s3 import S3Store
from exporters.stores.s3_errors import s3_error
from exporters.stores.s3_session import s3_client

PROBE = "logs/auditstore_verification_conditional.txt"
OPTIONS = {
    "sse": "aws:kms",
    "kms_key_id": "alias/audit",
    "storage_class": "STANDARD_IA",
    "expected_bucket_owner": "123456789012",
}


def open_fake(
    server: FakeStore,
    *,
    attempts: int = 1,
    read_timeout: float = 20,
    options: dict[str, str] | None = None,
) -> S3Store:
    destination = Destination("s3", unique_name("bucket"), "logs", server.url)
    client = s3_client(
        destination,
        region="us-east-1",
        secret=S3_SECRET,
        options=options or {},
        attempts=attempts,
        read_timeout=read_timeout,
    )
    return S3Store(client, destination, options=options, secrets=tuple(S3_SECRET.values()))


def settled(store: S3Store, server: FakeStore) -> S3Store:
    """The store after its first write, so that a script meets no probe."""
    store.put_if_absent(new_object("logs/first"))
    server.requests.clear()
    return store


@pytest.fixture
def server() -> Iterator[FakeStore]:
    with running_fake_store("s3") as fake:
        yield fake


@pytest.fixture
def store(server: FakeStore) -> Iterator[S3Store]:
    opened = settled(open_fake(server), server)
    yield opened
    opened.close()


def failure_of_put(store: S3Store) -> AuditStoreError:
    with pytest.raises(AuditStoreError) as caught:
        store.put_if_absent(new_object("logs/x"))
    return caught.value


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "InternalError"),
        (502, "BadGateway"),
        (503, "SlowDown"),
        (503, "ServiceUnavailable"),
        (504, "GatewayTimeout"),
        (507, "XMinioStorageFull"),
        (429, "TooManyRequests"),
        (400, "RequestTimeout"),
        (400, "BadDigest"),
        (400, "XAmzContentSHA256Mismatch"),
        (400, "IncompleteBody"),
        (409, "OperationAborted"),
        (409, "ConditionalRequestConflict"),
        (400, "KMS.ThrottlingException"),
    ],
)
def test_passing_answers(store: S3Store, server: FakeStore, status: int, code: str) -> None:
    """What passes by itself is raised as unavailable, so that it is tried again for ever."""
    server.script = [Answer(status, code)]
    error = failure_of_put(store)
    assert isinstance(error, StoreUnavailable)
    assert code in error.message
    assert store.put_if_absent(new_object("logs/x")).created


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, "AccessDenied", "s3:PutObject"),
        (403, "InvalidAccessKeyId", "rotate"),
        (403, "SignatureDoesNotMatch", "missing or added character"),
        (403, "RequestTimeTooSkewed", "clock"),
        (400, "ExpiredToken", "token"),
        (400, "InvalidToken", "token"),
        (400, "TokenRefreshRequired", "token"),
        (404, "NoSuchBucket", "Create the bucket"),
        (301, "PermanentRedirect", "region"),
        (400, "AuthorizationHeaderMalformed", "region"),
        (400, "KMS.DisabledException", "kms:GenerateDataKey"),
        (400, "KMS.NotFoundException", "kms:GenerateDataKey"),
        (403, "KMS.AccessDeniedException", "kms:GenerateDataKey"),
        (403, "AccountProblem", "owner"),
        (403, "AllAccessDisabled", "owner"),
        (403, "InvalidObjectState", "Restore"),
        (501, "NotImplemented", "options"),
        (400, "InvalidStorageClass", "storage_class"),
        (418, "Teapot", "documentation"),
        (409, "InvalidBucketState", "owner"),
    ],
)
def test_refusals(store: S3Store, server: FakeStore, status: int, code: str, hint: str) -> None:
    """What an operator must change is refused with the store's own code and what to do."""
    server.script = [Answer(status, code)]
    error = failure_of_put(store)
    assert isinstance(error, StoreRefused)
    assert error.code == code
    assert code in error.message
    assert hint in error.hint


def test_no_secret_in_messages(store: S3Store, server: FakeStore) -> None:
    """A server that repeats a secret in its answer does not get it into our message."""
    secret = S3_SECRET["secret_access_key"]
    server.script = [Answer(403, "Odd", f"you sent {secret}\nand {secret}" + "x" * 1000)]
    error = failure_of_put(store)
    assert secret not in error.message + error.hint
    assert "you sent *** and ***" in error.message
    assert len(error.message) < 500


def test_a_refusal_without_words(store: S3Store, server: FakeStore) -> None:
    """A server that gives a code and no message is understood by its code."""
    server.script = [Answer(403, "AccessDenied", "")]
    error = failure_of_put(store)
    assert isinstance(error, StoreRefused)
    assert error.code == "AccessDenied"


def test_an_answer_that_is_not_xml_passes(store: S3Store, server: FakeStore) -> None:
    """A proxy's empty 503 passes."""
    server.script = [Answer(503)]
    assert isinstance(failure_of_put(store), StoreUnavailable)


def test_a_connection_that_is_cut_passes(store: S3Store, server: FakeStore) -> None:
    """A reset while waiting for the answer passes."""
    server.script = [Answer(then="cut")]
    assert isinstance(failure_of_put(store), StoreUnavailable)


def test_a_timeout_passes(server: FakeStore) -> None:
    """A server that does not answer in time is tried again later."""
    store = settled(open_fake(server, read_timeout=0.3), server)
    server.script = [Answer(then="hang")]
    assert isinstance(failure_of_put(store), StoreUnavailable)
    store.close()


def test_an_unknown_host_passes(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS that fails passes."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    store.close()
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    fresh = Destination("s3", "bucket", "", "https://store.example:9000")
    client = s3_client(fresh, region="us-east-1", secret=S3_SECRET, options={}, attempts=1)
    assert isinstance(failure_of_put(S3Store(client, fresh)), StoreUnavailable)
    client.close()


def test_a_certificate_that_is_not_trusted_is_refused(tmp_path: Path) -> None:
    """A wrong certificate does not mend itself: the operator is told."""
    with running_fake_store("s3", tls=self_signed(tmp_path)) as server:
        store = open_fake(server)
        error = failure_of_put(store)
        assert isinstance(error, StoreRefused)
        assert error.code == "CertificateNotTrusted"
        store.close()


def test_a_conflict_of_conditional_writes_is_tried_again(server: FakeStore) -> None:
    """409 ConditionalRequestConflict, then 200, is one call that created the object."""
    store = settled(open_fake(server, attempts=3), server)
    server.script = [Answer(409, "ConditionalRequestConflict")]
    assert store.put_if_absent(new_object("logs/x")).created
    assert len(server.requests) == 2
    store.close()


def test_an_object_stored_before_the_answer_was_lost(server: FakeStore) -> None:
    """Stored, timed out, and 412 on the retry: not created, for the caller to compare."""
    store = settled(open_fake(server, attempts=2, read_timeout=0.3), server)
    server.script = [Answer(then="hang", store=True)]
    result = store.put_if_absent(new_object("logs/x", b"once"))
    assert not result.created
    assert [request.method for request in server.requests] == ["PUT", "PUT"]
    assert read_all(store, "logs/x") == b"once"
    store.close()


def test_a_body_corrupted_on_the_way_is_not_stored(server: FakeStore) -> None:
    """The SHA-256 that is sent lets the server refuse it; that passes, and nothing is there."""
    store = settled(open_fake(server), server)
    server.script = [Answer(then="corrupt")]
    error = failure_of_put(store)
    assert isinstance(error, StoreUnavailable)
    assert "BadDigest" in error.message
    assert "logs/x" not in server.objects
    store.close()


def test_what_a_write_sends(server: FakeStore) -> None:
    """One PUT carries condition, checksum, type, encoding, metadata and the options."""
    store = settled(open_fake(server, options=OPTIONS), server)
    new = new_object(
        "logs/x",
        content_type="application/x-ndjson",
        content_encoding="gzip",
        metadata={"content-sha256": "ab"},
    )
    store.put_if_absent(new)
    (request,) = server.requests
    expected = {
        "if-none-match": "*",
        "content-type": "application/x-ndjson",
        "content-encoding": "gzip",
        "x-amz-meta-content-sha256": "ab",
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "alias/audit",
        "x-amz-storage-class": "STANDARD_IA",
        "x-amz-expected-bucket-owner": "123456789012",
    }
    assert {name: request.headers.get(name) for name in expected} == expected
    assert "x-amz-checksum-sha256" in request.headers
    assert "x-amz-trailer" not in request.headers
    store.close()


def test_the_probe_of_a_server_that_keeps_conditions(server: FakeStore) -> None:
    """Asked once for each endpoint and bucket, below the prefix; a second store does not ask."""
    first = open_fake(server)
    first.put_if_absent(new_object("logs/x"))
    second = S3Store(first._client, first._destination)
    second.put_if_absent(new_object("logs/y"))
    assert [request.key for request in server.requests] == [PROBE, PROBE, "logs/x", "logs/y"]
    assert all("if-none-match" in request.headers for request in server.requests)
    first.close()


def test_the_probe_of_a_later_process(server: FakeStore) -> None:
    """A probe object of an earlier process answers with one request."""
    earlier = open_fake(server)
    earlier.put_if_absent(new_object("logs/x"))
    earlier.close()
    server.requests.clear()
    later = open_fake(server)
    later.put_if_absent(new_object("logs/y"))
    assert [request.key for request in server.requests] == [PROBE, "logs/y"]
    later.close()


def test_a_server_that_hangs_holds_up_no_other(server: FakeStore) -> None:
    """While one server does not answer the first question, another takes files."""
    hanging = open_fake(server)
    server.script = [Answer(then="hang")]
    with running_fake_store("s3") as other, ThreadPoolExecutor(2) as threads:
        stuck = threads.submit(failure_of_put, hanging)
        assert server.arrived.wait(30)
        working = open_fake(other)
        done = threads.submit(working.put_if_absent, new_object("logs/x"))
        try:
            assert done.result(timeout=30).created
            assert not stuck.done()
        finally:
            server.released.set()
        assert isinstance(stuck.result(timeout=30), StoreUnavailable)
        working.close()
    hanging.close()


def test_many_threads_ask_once(server: FakeStore) -> None:
    """Eight first writes at once make one probe between them."""
    store = open_fake(server)
    results = race(8, lambda number: store.put_if_absent(new_object(f"logs/{number}")))
    assert all(result.created for result in results)
    assert [request.key for request in server.requests].count(PROBE) == 2
    store.close()


def test_a_role_that_may_not_be_assumed() -> None:
    """The hint is about the role's trust, not about the bucket's rights."""
    error = s3_error(
        status=403,
        code="AccessDenied",
        server_message="not authorized to perform sts:AssumeRole",
        operation="AssumeRole",
        place="s3://bucket",
    )
    assert isinstance(error, StoreRefused)
    assert "trust policy" in error.hint


@pytest.mark.parametrize("conditions", ["ignored", "refused"])
def test_a_server_without_conditions(server: FakeStore, conditions: str) -> None:
    """It is looked at before each write, so that nothing that is there is overwritten."""
    assert conditions in {"ignored", "refused"}
    server.conditions = "ignored" if conditions == "ignored" else "refused"
    store = open_fake(server)
    assert store.put_if_absent(new_object("logs/x", b"first")).created
    assert not store.put_if_absent(new_object("logs/x", b"other")).created
    assert server.objects["logs/x"].body == b"first"
    writes = [r for r in server.requests if r.method == "PUT" and r.key == "logs/x"]
    assert len(writes) == 1
    assert "if-none-match" not in writes[0].headers
    store.close()


def test_a_server_that_comes_to_refuse_conditions(server: FakeStore) -> None:
    """Exchanged for another one while the exporter runs: it is asked anew, and looked at."""
    store = settled(open_fake(server), server)
    server.conditions = "refused"
    assert store.put_if_absent(new_object("logs/x", b"first")).created
    assert not store.put_if_absent(new_object("logs/x", b"other")).created
    assert server.objects["logs/x"].body == b"first"
    store.close()


def test_a_refused_option_is_no_refused_condition(server: FakeStore) -> None:
    """A server that answers 501 to a write without conditions, too, lacks something else."""
    store = settled(open_fake(server), server)
    server.script = [Answer(501, "NotImplemented")] * 2 + [Answer(404, "NoSuchKey")] * 2
    server.script += [Answer(501, "NotImplemented")]
    error = failure_of_put(store)
    assert isinstance(error, StoreRefused)
    assert error.code == "NotImplemented"
    store.close()


def test_a_probe_that_fails_is_asked_again(server: FakeStore) -> None:
    """An unavailable server at the first write settles nothing."""
    store = open_fake(server)
    server.script = [Answer(503, "SlowDown")]
    assert isinstance(failure_of_put(store), StoreUnavailable)
    server.script = [Answer(403, "AccessDenied")]
    assert isinstance(failure_of_put(store), StoreRefused)
    assert store.put_if_absent(new_object("logs/x")).created
    store.close()


@pytest.mark.parametrize(
    ("status", "code"), [(403, "InvalidAccessKeyId"), (404, "NoSuchBucket"), (400, "ExpiredToken")]
)
def test_head_finds_out_why(store: S3Store, server: FakeStore, status: int, code: str) -> None:
    """HEAD answers have no body: the reason comes from a second request."""
    server.script = [Answer(status, code)] * 5  # on 400 botocore looks for the region between
    with pytest.raises(StoreRefused) as caught:
        store.head("logs/x")
    assert caught.value.code == code
    assert server.requests[0].method == "HEAD"
    assert "GET" in [request.method for request in server.requests]


def test_head_of_an_object_that_came_meanwhile(store: S3Store, server: FakeStore) -> None:
    """Missing for HEAD and there for the second request: it is described all the same."""
    store.put_if_absent(new_object("logs/x", b"12345", metadata={"count": "1"}))
    server.script = [Answer(404, "NoSuchKey")]
    info = store.head("logs/x")
    assert info is not None
    assert (info.size, info.metadata) == (5, {"count": "1"})


def test_a_download_that_breaks_off_passes(store: S3Store, server: FakeStore) -> None:
    """Half a body never looks like a whole one."""
    store.put_if_absent(new_object("logs/x", b"x" * 3_000_000))
    server.script = [Answer(then="half")]
    chunks = store.read("logs/x")
    assert chunks is not None
    with pytest.raises(StoreUnavailable):
        b"".join(chunks)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(503, "SlowDown"), StoreUnavailable),
        (Answer(403, "AccessDenied"), StoreRefused),
    ],
)
def test_failures_of_reads_and_listings(
    store: S3Store, server: FakeStore, answer: Answer, kind: type[AuditStoreError]
) -> None:
    """Reading and listing translate as writing does."""
    server.script = [answer]
    with pytest.raises(kind):
        store.read("logs/x")
    server.script = [answer]
    with pytest.raises(kind):
        list(store.list("logs/"))
