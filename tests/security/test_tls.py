"""Encryption in transit, on real TLS servers: each of the three refuses whom nobody vouches for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from support.certificates import self_signed, self_signed_pem
from support.commands import CommandLine
from support.export_command import running_exporter
from support.fake_http_store import FakeStore, running_fake_store
from support.fixtures_postgres import NEWEST, VERSIONS
from support.postgres import Cluster
from support.stores import S3_SECRET, new_object
from support.tls_front import running_tls_front

from auditstore import streams, transport
from auditstore.database import create_engine, database_url, migrate
from auditstore.destinations import Destination
from auditstore.errors import AuditStoreError, ConfigurationError, DatabaseRefused, StoreRefused
from auditstore.sql.failures import translated
from auditstore.streams import NewStream
from auditstore.vault import new_key
from exporters.stores import open_store

NAME = "db.example.com"
AZURE_KEY = "a2V5LW9mLXRoZS10ZXN0cw=="


@pytest.fixture(autouse=True)
def _nobodys_authorities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's own settings for TLS decide nothing here."""
    for name in (
        "PGSSLMODE", "PGSSLROOTCERT", "PGHOST", "PGHOSTADDR", "PGSERVICE", "AWS_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
        "AZURE_STORAGE_CONNECTION_STRING",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


# --- the database -------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's certificate, which is its own authority."""
    return self_signed_pem(tmp_path_factory.mktemp("tls"), NAME)


@dataclass(frozen=True)
class TlsServer:
    """A PostgreSQL server that offers TLS on this port, with a certificate nobody trusts."""

    port: int


def _has_tls(bin_dir: Path) -> bool:
    # Only a build without TLS carries this sentence; the embedded one is such a build.
    return b"SSL is not supported by this build" not in (bin_dir / "postgres").read_bytes()


WITH_TLS = [version for version, bin_dir in VERSIONS.items() if _has_tls(bin_dir)]


@pytest.fixture(scope="module", params=[*WITH_TLS, "front"], ids=str)
def tls_server(request: pytest.FixtureRequest, certificate: Path) -> Iterator[TlsServer]:
    """`ssl = on` in each version that can, and TLS in front of a server that cannot."""
    own = request.param != "front"
    version = request.param if own else NEWEST
    cluster = Cluster.create(VERSIONS[version], settings={"fsync": "off"})
    cluster.execute("CREATE DATABASE store")
    migrate(cluster.url("store"))
    try:
        if not own:
            with running_tls_front(certificate, cluster.port) as port:
                yield TlsServer(port)
                cluster.stop("immediate")
            return
        pem = cluster.data_dir / "server.pem"
        shutil.copy(certificate, pem)
        pem.chmod(0o600)
        cluster._programs.give(pem)
        files = {"ssl_cert_file": "server.pem", "ssl_key_file": "server.pem"}
        cluster.settings = {**cluster.settings, "ssl": "on", **files}
        cluster.restart()
        yield TlsServer(cluster.port)
    finally:
        cluster.destroy()


def remote(server: TlsServer, more: str = "", host: str = NAME) -> str:
    """A URL that names a server elsewhere; its address is this machine's."""
    query = f"hostaddr=127.0.0.1{more}"
    return f"postgresql://postgres@{host}:{server.port}/store?{query}"


def encrypted(url: str) -> bool:
    """Connect as every command does; whether TLS is in use."""
    engine = create_engine(url)
    try:
        with translated(), engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            return driver.pgconn.ssl_in_use
    finally:
        engine.dispose()


def test_a_database_that_nobody_vouches_for_is_refused(tls_server: TlsServer) -> None:
    """Without a word about TLS in the URL, and the error says how to name the authority."""
    with pytest.raises(DatabaseRefused, match="certificate is not trusted") as error:
        encrypted(remote(tls_server))
    assert "sslrootcert" in error.value.hint

    cli = CommandLine({"AUDITSTORE_DATABASE_URL": remote(tls_server)})
    said, hint = cli.error("status")
    assert "certificate is not trusted" in said
    assert "sslrootcert" in hint


def test_a_database_whose_authority_is_named_is_trusted_by_name(
    tls_server: TlsServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the URL, in PGSSLROOTCERT or in libpq's own place; another server's name is refused."""
    assert encrypted(remote(tls_server, f"&sslrootcert={certificate}"))
    with pytest.raises(DatabaseRefused, match="does not match host name"):
        encrypted(remote(tls_server, f"&sslrootcert={certificate}", host="other.example.com"))
    monkeypatch.setenv("PGSSLROOTCERT", str(certificate))
    assert encrypted(remote(tls_server))
    with pytest.raises(DatabaseRefused, match="does not match host name"):
        encrypted(remote(tls_server, host="other.example.com"))


@pytest.mark.parametrize("mode", ["require", "prefer", "disable"])
def test_less_must_be_asked_for_and_is_told(tls_server: TlsServer, mode: str) -> None:
    """`?sslmode=` is obeyed; the daemon's log and `status` say what it leaves open."""
    url = remote(tls_server, f"&sslmode={mode}")
    assert encrypted(url) is (mode != "disable")
    cli = CommandLine({"AUDITSTORE_DATABASE_URL": url})
    assert f"sslmode={mode} asks for" in cli.run("status").stderr
    with running_exporter({"AUDITSTORE_DATABASE_URL": url}) as exporter:
        entry = exporter.wait_for("database connection not protected")
        exporter.wait_for("exporting")
        assert exporter.stop() == 0
    assert f"sslmode={mode}" in entry["cause"]


def test_a_database_without_encryption_is_refused_unless_asked_for(cluster: Cluster) -> None:
    """libpq's own default would go on in clear text."""
    # This build has no TLS.
    url = f"postgresql://postgres@{NAME}:{cluster.port}/postgres?hostaddr=127.0.0.1"
    with pytest.raises(DatabaseRefused, match="does not offer encryption") as error:
        encrypted(url)
    assert "sslmode=disable" in error.value.hint
    assert not encrypted(f"{url}&sslmode=disable")


@pytest.mark.parametrize(
    ("text", "environment", "mode"),
    [
        ("postgresql:///db", {}, None),
        ("postgresql://localhost/db", {}, None),
        ("postgresql://127.0.0.2:5432/db", {}, None),
        ("postgresql://[::1]/db", {}, None),
        ("postgresql:///db?host=/run/postgresql", {}, None),
        ("postgresql:///db", {"PGHOST": "/run/postgresql"}, None),
        ("postgresql://db.example.com/db", {}, "verify-full"),
        ("postgresql://10.0.0.1/db", {}, "verify-full"),
        ("postgresql://[2001:db8::1]:5432/db", {}, "verify-full"),
        ("postgresql:///db", {"PGHOST": "db.example.com"}, "verify-full"),
        ("postgresql:///db", {"PGHOSTADDR": "10.0.0.1"}, "verify-full"),
        ("postgresql://localhost/db?hostaddr=10.0.0.1", {}, "verify-full"),
        ("postgresql:///db?host=localhost:5432&host=other:5432", {}, "verify-full"),
        ("postgresql:///db?host=localhost,other", {}, "verify-full"),
        ("postgresql:///db?service=main", {}, "verify-full"),
        ("postgresql:///db", {"PGSERVICE": "main"}, "verify-full"),
        ("postgresql://localhost.example.com/db", {}, "verify-full"),
        ("postgresql://other/db", {"PGSSLMODE": ""}, "verify-full"),
        ("postgresql://other/db", {"PGSSLMODE": "require"}, "require"),
        ("postgresql://other/db?sslmode=verify-ca", {"PGSSLMODE": "disable"}, "verify-ca"),
        ("postgresql://other/db?sslmode=disable", {}, "disable"),
    ],
)
def test_which_databases_must_prove_themselves(
    text: str, environment: dict[str, str], mode: str | None
) -> None:
    """Every server off this machine, however it is named, unless another mode is asked for."""
    url = transport.protected(sa.make_url(text), environment)
    assert url.query.get("sslmode") == mode
    weak = transport.weakness(url, environment)
    assert (weak is None) == (mode in {None, "verify-full"})
    if mode == "verify-full":
        assert url.query["sslrootcert"] == "system" or Path(str(url.query["sslrootcert"])).is_file()


def test_a_url_says_nothing_of_its_own_about_loopback(cluster: Cluster) -> None:
    """What the tests, the demo and the embedded server use stays as it is."""
    assert "sslmode" not in database_url(cluster.url(tcp=True)).query


# --- the stores ---------------------------------------------------------------------

# What disables checks elsewhere, or looks as if it should.
TRICKS: dict[str, dict[str, str]] = {
    "nothing": {},
    "empty AWS_CA_BUNDLE": {"AWS_CA_BUNDLE": ""},
    "blank AWS_CA_BUNDLE": {"AWS_CA_BUNDLE": " "},
    "empty REQUESTS_CA_BUNDLE": {"REQUESTS_CA_BUNDLE": ""},
    "empty CURL_CA_BUNDLE": {"CURL_CA_BUNDLE": ""},
    "PYTHONHTTPSVERIFY": {"PYTHONHTTPSVERIFY": "0"},
    "AZURE_CLI": {"AZURE_CLI_DISABLE_CONNECTION_VERIFICATION": "1"},
    "NODE": {"NODE_TLS_REJECT_UNAUTHORIZED": "0", "SSL_VERIFY": "false"},
}


@pytest.fixture(scope="module", params=["s3", "azure"])
def tls_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[FakeStore, Path]]:
    """A store behind TLS with a certificate that nobody trusts, and that certificate."""
    folder = tmp_path_factory.mktemp("store")
    with running_fake_store(request.param, tls=self_signed(folder)) as store:
        yield store, folder / "self-signed.pem"


def put(store: FakeStore, url: str | None = None, **options: str) -> None:
    """Write an object as the exporter does."""
    url = url or store.url
    if store.dialect == "s3":
        destination = Destination("s3", "some-bucket", "p", url)
        opened = open_store(destination, region="us-east-1", secret=S3_SECRET, options=options)
    else:
        account = f"{url}/account"
        destination = Destination("azure", "container", "p", account)
        secret = {"account_url": account, "account_key": AZURE_KEY}
        opened = open_store(destination, secret=secret, options=options)
    try:
        opened.put_if_absent(new_object("p/object"))
    finally:
        opened.close()


# Azure's client tries again for seconds before it says no: all variables at once for it.
@pytest.mark.parametrize(
    ("tls_store", "trick"),
    [*(("s3", trick) for trick in TRICKS), ("azure", "nothing"), ("azure", "all of them")],
    indirect=["tls_store"],
)
def test_a_store_that_nobody_vouches_for_is_refused(
    tls_store: tuple[FakeStore, Path], monkeypatch: pytest.MonkeyPatch, trick: str
) -> None:
    """No variable that turns checks off elsewhere does it here, and nothing is sent."""
    store, _ = tls_store
    everything = {name: value for each in TRICKS.values() for name, value in each.items()}
    for name, value in TRICKS.get(trick, everything).items():
        monkeypatch.setenv(name, value)
    before = len(store.requests)
    with pytest.raises(StoreRefused, match="certificate is not trusted") as error:
        put(store, insecure_http="yes")
    assert error.value.code == "CertificateNotTrusted"
    assert len(store.requests) == before


def test_a_store_whose_authority_is_named_is_trusted(
    tls_store: tuple[FakeStore, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same server, once its authority is named: so it was the certificate that was refused."""
    store, pem = tls_store
    monkeypatch.setenv("AWS_CA_BUNDLE" if store.dialect == "s3" else "REQUESTS_CA_BUNDLE", str(pem))
    put(store)
    assert any(request.key == "p/object" for request in store.requests)


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_file_of_authorities_that_is_not_there_is_the_operators(
    tls_store: tuple[FakeStore, Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Not a trouble that passes, and no crash: where the store would use it, its path is named."""
    store, _ = tls_store
    monkeypatch.setenv(name, "/no/such/bundle.pem")
    used = {"s3": {"AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"},
            "azure": {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}}[store.dialect]  # fmt: skip
    with pytest.raises(AuditStoreError) as error:
        put(store)
    assert ("/no/such/bundle.pem" in error.value.message) == (name in used)
    assert isinstance(error.value, ConfigurationError if name in used else StoreRefused)


def test_a_stream_to_an_untrusted_store_is_blocked_with_the_cause(
    database_url: str, tls_store: tuple[FakeStore, Path]
) -> None:
    """The whole way: the command says what is wrong, and how to mend it."""
    store, _ = tls_store
    cli = CommandLine(
        {
            "AUDITSTORE_DATABASE_URL": database_url, "AUDITSTORE_SECRET_KEYS": new_key(),
            "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST", "AWS_SECRET_ACCESS_KEY": "secret",
            "AZURE_STORAGE_CONNECTION_STRING": f"AccountName=account;AccountKey={AZURE_KEY};"
            f"BlobEndpoint={store.url}/account",
        }
    )  # fmt: skip
    url, endpoint = {
        "s3": ("s3://some-bucket/p", store.url),
        "azure": ("azure://container/p", f"{store.url}/account"),
    }[store.dialect]
    cli.run("stream", "add", "--flow", "f", "--to", url, "--endpoint-url", endpoint)
    said = cli.run("stream", "test", "1", code=2).stderr
    assert "certificate is not trusted" in said
    assert "CA" in said


# --- http:// ------------------------------------------------------------------------

# An address that is kept for documentation: nothing is ever sent to it.
ELSEWHERE = "http://192.0.2.1:9000"


@pytest.mark.parametrize("scheme", ["s3", "azure"])
def test_http_to_another_machine_is_refused_when_a_stream_is_added_or_changed(
    engine: sa.Engine, scheme: str
) -> None:
    """Unless it is recorded on the stream that this is meant; it cannot be taken back half-way."""
    url = f"{scheme}://some-bucket/p"
    with engine.connect() as connection:
        with pytest.raises(ConfigurationError, match="unencrypted") as error:
            streams.add(connection, NewStream("f", url, endpoint_url=ELSEWHERE), actor="me")
        assert "insecure_http=yes" in error.value.hint
        local = NewStream("f", url, endpoint_url="http://127.0.0.1:9")
        stream = streams.add(connection, local, actor="me")
        for settings in (
            {"endpoint_url": ELSEWHERE},
            {"endpoint_url": ELSEWHERE, "options": {"insecure_http": "no"}},
        ):
            with pytest.raises(ConfigurationError, match="unencrypted"):
                streams.change(connection, stream.stream_id, settings, actor="me")
        meant = {"endpoint_url": ELSEWHERE, "options": {"insecure_http": "yes"}}
        changed = streams.change(connection, stream.stream_id, meant, actor="me")
        assert changed.options == {"insecure_http": "yes"}
        with pytest.raises(ConfigurationError, match="unencrypted"):
            streams.change(connection, stream.stream_id, {"options": {}}, actor="me")
        recorded = streams.changes(connection, stream.stream_id)[-1]
        assert recorded.after["options"] == {"insecure_http": "yes"}


def test_the_option_is_recorded_and_seen(database_url: str) -> None:
    """`stream list`, `show` and `status` say that the way may be unencrypted."""
    cli = CommandLine({"AUDITSTORE_DATABASE_URL": database_url})
    to = ("stream", "add", "--flow", "f", "--to", "s3://some-bucket/p", "--endpoint-url", ELSEWHERE)
    said, hint = cli.error(*to)
    assert "unencrypted" in said
    assert "insecure_http=yes" in hint
    cli.run(*to, "--option", "insecure_http=yes")
    for command in (("stream", "list"), ("stream", "show", "1"), ("status",)):
        assert "may go unencrypted" in cli.run(*command).stdout
    assert cli.json("stream", "show", "1")["options"] == {"insecure_http": "yes"}


@pytest.mark.parametrize(
    ("connection_string", "allowed"),
    [
        # The SDK itself takes https where no endpoint is named.
        ("DefaultEndpointsProtocol=http;AccountName=account;AccountKey={key}", True),
        ("AccountName=account;AccountKey={key};BlobEndpoint=http://192.0.2.1/account", False),
        ("BlobEndpoint=http://192.0.2.1/account;SharedAccessSignature=sig=x", False),
        ("DefaultEndpointsProtocol=https;AccountName=account;AccountKey={key}", True),
        ("AccountName=account;AccountKey={key};BlobEndpoint=http://127.0.0.1:1/account", True),
    ],
)
def test_a_connection_string_does_not_turn_encryption_off(
    monkeypatch: pytest.MonkeyPatch, connection_string: str, *, allowed: bool
) -> None:
    """Kept or from the environment; the stream itself shows nothing of its protocol."""
    text = connection_string.format(key=AZURE_KEY)
    destination = Destination("azure", "container", "p")
    for secret in ({"connection_string": text}, None):
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
        if allowed:
            open_store(destination, secret=secret).close()
        else:
            with pytest.raises(ConfigurationError, match="unencrypted"):
                open_store(destination, secret=secret)
        open_store(destination, secret=secret, options={"insecure_http": "yes"}).close()


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_environment_does_not_turn_encryption_off_for_s3(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A server that it names is held to the same rule as one that the stream names."""
    monkeypatch.setenv(name, ELSEWHERE)
    destination = Destination("s3", "some-bucket", "p")
    with pytest.raises(ConfigurationError, match="unencrypted"):
        open_store(destination, region="us-east-1", secret=S3_SECRET)
    options = {"insecure_http": "yes"}
    open_store(destination, region="us-east-1", secret=S3_SECRET, options=options).close()


def test_a_role_is_not_assumed_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys that assume it would be signed with, and the answer holds new ones."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", ELSEWHERE)
    secret = S3_SECRET | {"role_arn": "arn:aws:iam::123456789012:role/r"}
    store = open_store(Destination("s3", "some-bucket", "p"), region="us-east-1", secret=secret)
    with pytest.raises(ConfigurationError, match="unencrypted"):
        store.head("p/x")
    store.close()
