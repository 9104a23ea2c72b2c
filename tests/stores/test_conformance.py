"""What every store promises, over each of them: folder, S3 (moto), Azure (Azurite)."""

import gzip
from urllib.parse import urlsplit

import pytest
from support.stores import Place, new_object, race, read_all, unique_name

from auditstore.destinations import Destination
from auditstore.errors import ConfigurationError, StoreRefused, StoreUnavailable
from auditstore.objects import VERIFICATION_PREFIX, ObjectStore
from exporters.stores import open_store
from exporters.stores.azure import AzureStore
from exporters.stores.s3 import S3Store

# Azure's word and Azurite's.
WRONG_SIGNATURE = {"AuthenticationFailed", "AuthorizationFailure"}
ODD_KEYS = [
    "plain.txt",
    "Grüße/日本語/🦊.json",
    "a b+c&d=e;f'g(h)!*~.txt",
    "percent%20literal%2Fslash",
    "flow_id=5f/date=2026-01-02/hour=03/x-1.ndjson.gz",
    "q?uery#fragment",
    "<xml>&\"'",
    ".hidden/file",
]


def keys(store: ObjectStore, prefix: str = "", start_after: str | None = None) -> set[str]:
    listed = {info.key for info in store.list(prefix, start_after=start_after)}
    # On moto, as on any server but Amazon's, the store tries conditional writes once.
    return {key for key in listed if not key.rpartition("/")[2].startswith(VERIFICATION_PREFIX)}


def test_creates_once(store: ObjectStore) -> None:
    """The first write creates; the second is told so and leaves the content as it is."""
    first = store.put_if_absent(new_object("a/one", b"first"))
    second = store.put_if_absent(new_object("a/one", b"other"))
    assert first.created
    assert first.info is not None
    assert first.info.key == "a/one"
    assert first.info.size == 5
    assert not second.created
    assert second.info is None
    assert read_all(store, "a/one") == b"first"


def test_the_same_content_again_is_not_created_either(store: ObjectStore) -> None:
    """A repeated write is for the caller to compare, whatever it holds."""
    store.put_if_absent(new_object("same"))
    assert not store.put_if_absent(new_object("same")).created


def test_a_race_has_one_winner(store: ObjectStore) -> None:
    """Of sixteen writers of one key one creates it, and what lies there is that one's."""
    bodies = [f"writer {number}".encode() * 2000 for number in range(16)]
    results = race(16, lambda number: store.put_if_absent(new_object("raced", bodies[number])))
    winners = [number for number, result in enumerate(results) if result.created]
    assert len(winners) == 1
    assert read_all(store, "raced") == bodies[winners[0]]


def test_reads_exact_bytes(store: ObjectStore) -> None:
    """Every byte value comes back, over several chunks and in an empty object."""
    body = bytes(range(256)) * 24_000
    store.put_if_absent(new_object("bytes", body))
    store.put_if_absent(new_object("empty", b""))
    assert read_all(store, "bytes") == body
    assert read_all(store, "empty") == b""


def test_reads_compressed_objects_undecoded(store: ObjectStore) -> None:
    """gzip stays gzip, although Content-Encoding tells clients to unpack it."""
    body = gzip.compress(b'{"id": 1}\n' * 10_000)
    new = new_object(
        "x.ndjson.gz", body, content_type="application/x-ndjson", content_encoding="gzip"
    )
    store.put_if_absent(new)
    assert read_all(store, "x.ndjson.gz") == body


def test_an_unread_object_can_be_dropped(store: ObjectStore) -> None:
    """Dropping the iterator after one chunk, or none, leaves nothing open."""
    store.put_if_absent(new_object("big", b"x" * 9_000_000))
    assert store.read("big") is not None
    chunks = store.read("big")
    assert chunks is not None
    assert next(chunks)
    del chunks
    assert store.head("big") is not None


def test_head_describes(store: ObjectStore, place: Place) -> None:
    """HEAD gives size, ETag and the metadata that was written; a folder has only the size."""
    metadata = {"content-sha256": "ab12", "count": "7", "format-version": "1"}
    put = store.put_if_absent(new_object("described", b"1234567", metadata=metadata))
    info = store.head("described")
    assert info is not None
    assert (info.key, info.size) == ("described", 7)
    if place.kind == "file":
        assert info.etag is None
        assert info.metadata == {}
    else:
        assert put.info is not None
        assert info.etag
        assert '"' not in info.etag
        assert info.etag == put.info.etag
        assert info.metadata == put.info.metadata == metadata


def test_listings_carry_metadata_where_the_store_lists_it(place: Place) -> None:
    """Azure lists metadata, with our hyphens; the others list none."""
    store = place.open()
    store.put_if_absent(new_object("listed", metadata={"content-sha256": "ab12"}))
    (info,) = store.list("listed")
    expected = {"content-sha256": "ab12"} if place.kind == "azure" else {}
    assert info.metadata == expected
    head = store.head("listed")
    assert head is not None
    assert info.etag == head.etag
    store.close()


def test_missing_objects_are_none(store: ObjectStore) -> None:
    """What is not there is None, in an empty store, beside others, and below a file."""
    assert store.head("nothing/here") is None
    assert store.read("nothing/here") is None
    store.put_if_absent(new_object("some"))
    assert store.head("nothing/here") is None
    assert store.read("nothing/here") is None
    assert store.head("some/below") is None
    assert store.read("some/below") is None


def test_a_folder_of_objects_is_no_object(store: ObjectStore) -> None:
    """The part of a key before a slash names nothing by itself."""
    store.put_if_absent(new_object("part/object"))
    assert store.head("part") is None
    assert store.read("part") is None


def test_lists_by_prefix(store: ObjectStore) -> None:
    """A prefix is a string, not a folder: it may end within a name."""
    for key in ("a/x", "a/y/z", "ab/x", "b"):
        store.put_if_absent(new_object(key))
    assert keys(store) == {"a/x", "a/y/z", "ab/x", "b"}
    assert keys(store, "a") == {"a/x", "a/y/z", "ab/x"}
    assert keys(store, "a/") == {"a/x", "a/y/z"}
    assert keys(store, "a/y/") == {"a/y/z"}
    assert keys(store, "none/of/these") == set()


def test_lists_what_is_after(store: ObjectStore) -> None:
    """start_after leaves out the key itself and all that sort before it by bytes."""
    for key in ("a/1", "a/2", "a/Z", "a/ä", "a/\uffee", "a/🦊"):
        store.put_if_absent(new_object(key))
    assert keys(store, "a/", "a/2") == {"a/Z", "a/ä", "a/\uffee", "a/🦊"}
    assert keys(store, "a/", "a/\uffee") == {"a/🦊"}
    assert keys(store, "a/", "a/🦊") == set()
    assert keys(store, "a/", "A") == keys(store)


def test_lists_over_many_pages(place: Place) -> None:
    """Every object is listed once, however many requests it takes."""
    store = place.open()
    if isinstance(store, S3Store | AzureStore):
        store._page_size = 3
    expected = {f"page/{number:02}" for number in range(20)}
    for key in expected:
        store.put_if_absent(new_object(key))
    listed = [info.key for info in store.list("page/")]
    assert sorted(listed) == sorted(expected)
    assert keys(store, "page/", "page/07") == {f"page/{number:02}" for number in range(8, 20)}
    store.close()


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys(store: ObjectStore, key: str) -> None:
    """Any key that templates and flow names can give is written, found and listed as it is."""
    assert store.put_if_absent(new_object(key, key.encode())).created
    assert not store.put_if_absent(new_object(key)).created
    assert read_all(store, key) == key.encode()
    info = store.head(key)
    assert info is not None
    assert info.key == key
    assert keys(store) >= {key}


def test_a_missing_bucket_is_refused(place: Place) -> None:
    """Each call tells a missing bucket from a missing object, and says what to do."""
    store = place.open(place.missing)
    for call in (
        lambda: store.put_if_absent(new_object("x")),
        lambda: store.head("x"),
        lambda: store.read("x"),
        lambda: list(store.list("")),
    ):
        with pytest.raises(StoreRefused) as caught:
            call()
        assert caught.value.code == place.missing_code
        assert caught.value.hint
    store.close()


@pytest.mark.parametrize("scheme", ["s3", "azure"])
def test_a_refused_connection_passes(scheme: str, unused_port: int) -> None:
    """A server that is down is waited for, in every call."""
    endpoint = f"http://127.0.0.1:{unused_port}" + ("/account" if scheme == "azure" else "")
    destination = Destination(scheme, "bucket", "", endpoint)
    secrets = {
        "s3": {"access_key_id": "AKIA", "secret_access_key": "s3cr3t-key"},
        "azure": {"account_url": endpoint, "account_key": "czNjcjN0LWtleQ=="},
    }
    store = open_store(destination, secret=secrets[scheme])
    with pytest.raises(StoreUnavailable) as caught:
        store.put_if_absent(new_object("x"))
    assert caught.value.hint
    for secret in secrets[scheme].values():
        if secret != endpoint:
            assert secret not in f"{caught.value.message} {caught.value.hint}"
    store.close()


def test_wrong_azure_key_is_refused(azure_place: Place) -> None:
    """A key of another account is the operator's to mend; the message does not show it."""
    assert azure_place.secret is not None
    wrong = azure_place.secret["connection_string"].replace("Eby8", "AAAA")
    store = open_store(azure_place.destination, secret={"connection_string": wrong})
    with pytest.raises(StoreRefused) as caught:
        store.put_if_absent(new_object("x"))
    assert caught.value.code in WRONG_SIGNATURE
    assert "AAAA8vdM" not in str(caught.value) + caught.value.hint
    store.close()


def test_wrong_azure_sas_is_refused_without_showing_it(azure_place: Place) -> None:
    """A SAS with a wrong signature is refused; its signature is in no message or cause."""
    assert azure_place.secret is not None
    parts = azure_place.secret["connection_string"].split("BlobEndpoint=")
    url = parts[1].rstrip(";")
    assert urlsplit(url).scheme == "http"
    sas = "sv=2023-11-03&ss=b&srt=sco&sp=rwlc&se=2099-01-01T00:00:00Z&sig=c2VjcmV0LXNpZw%3D%3D"
    store = open_store(azure_place.destination, secret={"account_url": url, "sas_token": sas})
    with pytest.raises(StoreRefused) as caught:
        store.put_if_absent(new_object("x"))
    assert caught.value.code in WRONG_SIGNATURE
    assert "c2VjcmV0" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__!r}"
    store.close()


def test_azure_account_key_works(azure_place: Place) -> None:
    """An account URL with its key is as good as a connection string."""
    assert azure_place.secret is not None
    fields = dict(
        part.split("=", 1) for part in azure_place.secret["connection_string"].split(";") if part
    )
    secret = {"account_url": fields["BlobEndpoint"], "account_key": fields["AccountKey"]}
    store = open_store(azure_place.destination, secret=secret)
    assert store.put_if_absent(new_object("x")).created
    store.close()


def test_azure_takes_its_credential_from_the_environment(
    azure_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a credential AZURE_STORAGE_CONNECTION_STRING is used; without both, told so."""
    assert azure_place.secret is not None
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    with pytest.raises(ConfigurationError):
        open_store(azure_place.destination)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azure_place.secret["connection_string"])
    store = open_store(azure_place.destination)
    assert store.put_if_absent(new_object("x")).created
    store.close()


def test_a_stream_is_not_sent_to_another_azure_account(azure_place: Place) -> None:
    """A credential for another account than the endpoint URL's is a configuration error."""
    destination = Destination("azure", "events", "", "https://other.blob.core.windows.net")
    with pytest.raises(ConfigurationError):
        open_store(destination, secret=azure_place.secret)


def test_s3_assumes_a_role(s3_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A role is assumed with the external id when first needed, and renews itself."""
    endpoint = s3_place.destination.endpoint_url
    assert endpoint is not None
    assert s3_place.secret is not None
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endpoint)
    secret = {
        **s3_place.secret,
        "role_arn": "arn:aws:iam::123456789012:role/exporter",
        "external_id": "tenant-7",
    }
    store = open_store(s3_place.destination, region="us-east-1", secret=secret)
    assert store.put_if_absent(new_object("x")).created
    assert isinstance(store, S3Store)
    credentials = store._client._request_signer._credentials  # type: ignore[attr-defined]  # botocore keeps it private
    assert credentials.method == "auditstore-assumed-role"
    assert credentials.access_key.startswith("ASIA")
    assert not credentials.refresh_needed()
    store.close()


def test_s3_without_credentials_says_so(
    s3_place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Where the environment's chain finds nothing, the operator is told what to give."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    empty = tmp_path_factory.mktemp("aws") / "none"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(empty))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(empty))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = open_store(s3_place.destination)
    with pytest.raises(StoreRefused) as caught:
        store.put_if_absent(new_object("x"))
    assert caught.value.code == "NoCredentials"
    store.close()


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("s3", {"colour": "red"}),
        ("s3", {"sse": "none"}),
        ("s3", {"storage_class": ""}),
        ("s3", {"kms_key_id": "alias/x"}),
        ("azure", {"sse": "AES256"}),
        ("file", {"mode": "0644"}),
    ],
)
def test_unknown_options_are_refused(scheme: str, options: dict[str, str]) -> None:
    """An option that the store does not know is an error that names those that it does."""
    destination = Destination(scheme, "/tmp/x" if scheme == "file" else unique_name("x"))  # noqa: S108 - never made
    with pytest.raises(ConfigurationError) as caught:
        open_store(destination, options=options)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("scheme", "secret"),
    [
        ("s3", {"access_key_id": "AKIA"}),
        ("s3", {"session_token": "t"}),
        ("s3", {"password": "hunter2"}),
        ("s3", {"access_key_id": "A", "secret_access_key": "hunter2", "external_id": "e"}),
        ("azure", {"account_url": "https://a.blob.core.windows.net"}),
        ("azure", {"connection_string": "hunter2"}),
        ("file", {"password": "hunter2"}),
    ],
)
def test_incomplete_credentials_are_refused(scheme: str, secret: dict[str, str]) -> None:
    """A credential that cannot work is a configuration error that does not show it."""
    destination = Destination(scheme, "/tmp/x" if scheme == "file" else "bucket")  # noqa: S108 - never made
    with pytest.raises(ConfigurationError) as caught:
        open_store(destination, secret=secret)
    assert "hunter2" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__!r}"
