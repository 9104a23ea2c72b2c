"""Hostile text in every field and every part of a key, on the real path: append, export, bucket,
reconcile, on each kind of store.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from support.bucket_check import check_bucket
from support.commands import CommandLine
from support.stores import Place

from auditstore import EventRepository, streams
from auditstore.destinations import Destination
from auditstore.errors import ConfigurationError, StoreRefused
from auditstore.layout import MAX_KEY_BYTES, event_key
from auditstore.objects import VERIFICATION_PREFIX, ObjectStore
from auditstore.repository import Snapshot
from auditstore.streams import NewStream
from exporters.once import export_once
from exporters.stores import open_store

HOSTILE = [
    "../../../etc/passwd", "..", ".", "...", "/etc/passwd", "a/b", "a//b", "a\\..\\b", "C:\\x",
    "%2e%2e%2f", "%00", "%", "a\nb", "a\r\nb", "\t", "\x1b[2J\x1b]0;title\x07", "\x7f\x9b2J",
    "\u202egnp.exe", "\u2028\u2029\u0085", "\ufeff", "é", "e\u0301", "\U0001f600", "\U0010ffff",
    " ", "'; DROP TABLE auditstore.events; --", "\" OR \"\"=\"", "$(touch x)`touch y`", "|x", "*",
    "{0.__class__}", "{flow}", "%(flow)s", "%s", "=HYPERLINK(\"http://x\")", "@SUM(1)", "-1", "NUL",
    "auditstore_verification_x", ".tmp-x", "%no-lead", "\\N", "\\.", "null", "<script>", "&amp;",
]  # fmt: skip
LONG = ["x" * 255, "é" * 127, "/" * 255, "\U0001f600" * 63]


def event(number: int, flow_id: str, lead_id: str, text: str) -> bytes:
    """An event whose every field that is text holds ``text``."""
    return json.dumps(
        {
            "id": f"{0x69000000 + number:08x}{secrets.token_hex(8)}",
            "vars": {"flow": {"id": flow_id, "name": text}, "lead": {"id": lead_id, text: text}},
            "type": text, "outcome": text, "reason": text, "step_id": text, text: [text],
        },
        ensure_ascii=number % 2 == 0,
    ).encode()  # fmt: skip


class Site:
    """A database and a place, with streams below it; everything goes the product's own way."""

    def __init__(self, engine: sa.Engine, database_url: str, place: Place) -> None:
        self.engine = engine
        self.place = place
        secret = place.secret or {}
        self.cli = CommandLine(
            {
                "AUDITSTORE_DATABASE_URL": database_url,
                "AWS_ACCESS_KEY_ID": secret.get("access_key_id", "x"),
                "AWS_SECRET_ACCESS_KEY": secret.get("secret_access_key", "x"),
                "AWS_DEFAULT_REGION": "us-east-1",
                "AZURE_STORAGE_CONNECTION_STRING": secret.get("connection_string", ""),
            }
        )

    def at(self, name: str) -> Destination:
        """A destination of its own below the place."""
        root = self.place.destination
        if root.scheme == "file":
            return Destination("file", f"{root.bucket}/{name}")
        return Destination(root.scheme, root.bucket, f"{root.prefix}/{name}", root.endpoint_url)

    def add(self, flow_id: str, destination: Destination, **more: Any) -> int:
        """Add a stream."""
        url, endpoint = destination.url, destination.endpoint_url
        with self.engine.begin() as connection:
            new = NewStream(flow_id, url, endpoint_url=endpoint, **more)
            return streams.add(connection, new, actor="test").stream_id

    def append(self, snapshots: list[Snapshot]) -> None:
        """Append in one transaction."""
        with self.engine.begin() as connection:
            EventRepository().append(connection, snapshots)

    def export(self) -> None:
        """Deliver everything."""

        def opener(_: sa.Connection, stream: streams.Stream) -> ObjectStore:
            return self.place.open(stream.destination)

        result = export_once(self.engine, opener)
        assert not result.failed, [str(outcome.error) for _, outcome in result.outcomes]

    def listed(self, destination: Destination) -> dict[str, bytes]:
        """The objects below a destination, by key."""
        store = self.place.open(destination)
        try:
            prefix = f"{destination.prefix}/" if destination.prefix else ""
            keys = [info.key for info in store.list(prefix)]
            data = [
                key for key in keys if not key.rpartition("/")[2].startswith(VERIFICATION_PREFIX)
            ]
            return {key: b"".join(store.read(key) or ()) for key in data}
        finally:
            store.close()


@pytest.fixture
def site(engine: sa.Engine, database_url: str, place: Place) -> Site:
    """Each kind of store in turn."""
    if place.kind == "file":
        Path(place.destination.bucket).mkdir()
    return Site(engine, database_url, place)


@pytest.fixture
def folder_site(engine: sa.Engine, database_url: str, folder_place: Place) -> Site:
    """A folder."""
    Path(folder_place.destination.bucket).mkdir()
    return Site(engine, database_url, folder_place)


def test_files_of_hostile_flows_lie_where_they_belong(site: Site) -> None:
    """Every flow id that an event can have: one stream each, bytes equal, all reconciled."""
    flows = HOSTILE
    if site.place.kind != "file":
        # Each stream opens clients of its own, which takes its time; all texts are leads below.
        flows = HOSTILE[::10] + LONG[:1]
    expected: dict[int, dict[str, bytes]] = {}
    for number, flow_id in enumerate(flows):
        stream_id = site.add(flow_id, site.at(f"s{number:03d}"))
        snapshots = [event(number, flow_id, text, text) for text in (flow_id, "lead")]
        expected[stream_id] = {json.loads(each)["id"]: each for each in snapshots}
        site.append(list(snapshots))
    site.export()
    for number, (stream_id, events) in enumerate(expected.items()):
        destination = site.at(f"s{number:03d}")
        prefix = f"{destination.prefix}/" if destination.prefix else ""
        store = site.place.open(destination)
        try:
            check_bucket(site.engine, stream_id, store, events)
            keys = [info.key for info in store.list(f"{prefix}flow_id=")]
        finally:
            store.close()
        (key,) = keys
        part = key.removeprefix(prefix).split("/")[0]
        # RFC 3986's safe characters only, whatever came in; dots at the end are none.
        assert part.isascii()
        assert part.startswith("flow_id=")
        assert set(part[8:]) <= set(quote(part[8:], safe="%"))
        assert not part.endswith(".")
        assert len(key.encode()) <= MAX_KEY_BYTES
    report = json.loads(site.cli.run("reconcile", "--level", "events", "--format", "json").stdout)
    assert report["result"] == "reconciled"
    assert sum(each["events_matched"] for each in report["streams"]) == 2 * len(flows)
    _check_nothing_strayed(site, {f"s{number:03d}" for number in range(len(flows))})


def test_objects_of_hostile_leads_lie_where_they_belong(site: Site) -> None:
    """In LeadConduit's layout the lead is a folder: one each, whatever its id."""
    leads = HOSTILE + LONG
    destination = site.at("json")
    site.add("f", destination, format="json")
    snapshots = [event(number, "f", lead_id, lead_id) for number, lead_id in enumerate(leads)]
    bare = b'{"id":"690000ff0000000000000001","vars":{"flow":{"id":"f"}}}'
    site.append([*snapshots, bare])
    site.export()
    objects = site.listed(destination)
    assert sorted(objects.values()) == sorted([*snapshots, bare])
    for lead_id, snapshot in zip(leads, snapshots, strict=True):
        event_id = json.loads(snapshot)["id"]
        key = event_key(prefix=destination.prefix, lead_id=lead_id, event_id=event_id)
        assert objects[key] == snapshot
        folder, name = key.removeprefix(f"{destination.prefix}/").split("/")
        assert name == f"{event_id}.json"
        assert folder.isascii()
        assert folder.isprintable()
        assert folder not in {".", ".."}
        assert len(folder) <= 255
    assert len({key.rpartition("/")[0] for key in objects}) == len(leads) + 1
    site.cli.run("reconcile", "--level", "events")
    _check_nothing_strayed(site, {"json"})


def _check_nothing_strayed(site: Site, names: set[str]) -> None:
    """In a folder, nothing lies beside what was meant."""
    if site.place.kind == "file":
        root = Path(site.place.destination.bucket)
        assert {path.name for path in root.iterdir()} == names
        assert [path.name for path in root.parent.iterdir()] == [root.name]
        assert not any(path.is_symlink() for path in root.rglob("*"))


# --- the limit of a key -----------------------------------------------------------------


def test_a_key_at_the_limit_is_written_and_a_longer_one_refused(site: Site) -> None:
    """1,024 bytes; a stream number of ten digits must still fit, and the first has six."""
    flow_id = "/" * 60
    destination = site.at("k")
    prefix = f"{destination.prefix}/" if destination.prefix else ""
    start = "{flow}/{stream}-{sequence}/"
    spare = MAX_KEY_BYTES - len(prefix + "%2F" * 60 + "/1000000000-0000000001/")
    longest = start + _parts(spare)
    with pytest.raises(ConfigurationError, match="keys would be 1025 bytes long, over 1024"):
        site.add(flow_id, destination, key_template=longest + "t")
    stream_id = site.add(flow_id, destination, key_template=longest)
    site.append([event(0, flow_id, "lead", "x")])
    site.export()
    (key,) = site.listed(destination)
    assert len(key.encode()) == MAX_KEY_BYTES - 4
    site.cli.run("reconcile", "--stream", str(stream_id), "--level", "events")


def _parts(size: int) -> str:
    """``size`` bytes of path, no part longer than a file's name may be, nor empty."""
    whole = ("t" * 200 + "/") * (size // 201 + 1)
    return whole[: size - 1] + "t"


# --- places and templates ----------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/a/../../etc", "/a/./b", "/..", "/a//b", "//a", "/a/%2e%2e/b", "/a/%2E%2E/b", "/a/%2e/b",
        "/a%2f..%2fb", "/a%00b", "/a\0b", "/a%0ab", "/a\nb", "/a%1bb", "/a\u0085b", "/%ff", "/", "",
        "/%2f", "/a/%C0%AE%C0%AE/b", "/\udcff",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_folder_that_is_spelled_to_mislead_is_refused(engine: sa.Engine, path: str) -> None:
    """Dots, empty parts, NUL, control characters and bad UTF-8, encoded or not; nothing is made."""
    with engine.begin() as connection:
        with pytest.raises(ConfigurationError):
            streams.add(connection, NewStream("f", f"file://{path}"), actor="test")
        assert streams.find(connection) == []


@pytest.mark.parametrize("scheme", ["s3", "azure"])
@pytest.mark.parametrize(
    "prefix",
    ["..", "a/..", "a/../b", ".", "a//b", "/a", "a\0b", "a\nb", "\x1b[2J", "\x9b", "\ud800"],
    ids=ascii,
)  # fmt: skip
def test_a_prefix_that_is_spelled_to_mislead_is_refused(
    engine: sa.Engine, scheme: str, prefix: str
) -> None:
    """The same for buckets, where tools on the way may resolve dots; nothing is decoded there."""
    with engine.begin() as connection, pytest.raises(ConfigurationError):
        streams.add(connection, NewStream("f", f"{scheme}://bucket-1/{prefix}"), actor="test")
    literal = Destination("s3", "bucket-1", "%2e%2e/x")
    assert (literal.prefix, literal.url) == ("%2e%2e/x", "s3://bucket-1/%2e%2e/x")


@pytest.mark.parametrize(
    "template",
    [
        "../{stream}-{sequence}", "{stream}/../{sequence}", "./{stream}{sequence}",
        "/{stream}{sequence}", "{stream}//{sequence}", "{stream}{sequence}/",
        "..{stream}/{sequence}/..", "{stream}{sequence}\0", "{stream}{sequence}\n",
        "{stream}{sequence}\x1b[2J", "é{stream}{sequence}", "a\\b{stream}{sequence}",
        "{flow.__class__}{stream}{sequence}", "{flow[0]}{stream}{sequence}",
        "{flow!r}{stream}{sequence}", "{flow:>9999999999}{stream}{sequence}",
        "{0}{stream}{sequence}", "{}{stream}{sequence}", "{stream", "{stream}", "{sequence}", "x",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_template_that_leads_astray_is_refused(engine: sa.Engine, template: str) -> None:
    """When a stream is added and when it is changed: no dots, no attribute, no shared key."""
    with engine.begin() as connection:
        new = NewStream("..", "s3://bucket-1/p", key_template=template)
        with pytest.raises(ConfigurationError):
            streams.add(connection, new, actor="test")
        stream = streams.add(connection, NewStream("..", "s3://bucket-1/p"), actor="test")
        with pytest.raises(ConfigurationError):
            streams.change(connection, stream.stream_id, {"key_template": template}, actor="test")


def test_dots_around_a_field_do_not_become_a_parent(folder_site: Site) -> None:
    """A template `..{flow}` with a flow of nothing but dots is still one name."""
    destination = folder_site.at("dots")
    folder_site.add("..", destination, key_template="..{flow}/{flow}/{stream}-{sequence}")
    folder_site.append([event(0, "..", "lead", "x")])
    folder_site.export()
    (key,) = folder_site.listed(destination)
    assert key == "..%2E%2E/%2E%2E/000001-0000000001"
    _check_nothing_strayed(folder_site, {"dots"})


def test_a_link_planted_in_the_folder_blocks_the_stream(folder_site: Site, tmp_path: Path) -> None:
    """Nothing is written through it; taken away, the stream goes on and is reconciled."""
    destination = folder_site.at("out")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Path(destination.bucket).mkdir()
    link = Path(destination.bucket, "flow_id=f")
    link.symlink_to(elsewhere)
    folder_site.add("f", destination)
    folder_site.append([event(0, "f", "lead", "x")])
    said = folder_site.cli.run("export", "once", code=1).output
    assert "symbolic link" in said
    assert folder_site.cli.json("stream", "list")[0]["state"] == "blocked"
    assert list(elsewhere.iterdir()) == []
    link.unlink()
    folder_site.cli.run("export", "once")
    folder_site.cli.run("reconcile", "--level", "events")


@pytest.mark.parametrize(
    "key",
    ["../x", "a/../../x", "/etc/x", "a//x", "./x", "a/.", "", "a\0b", ".tmp-x", "a/.tmp-x/y"],
    ids=ascii,
)  # fmt: skip
def test_a_folder_refuses_keys_that_leave_it_whoever_asks(tmp_path: Path, key: str) -> None:
    """The last line, should a key ever be made another way."""
    (tmp_path / "store").mkdir()
    store = open_store(Destination("file", str(tmp_path / "store")))
    for call in (store.head, store.read):
        with pytest.raises(StoreRefused) as error:
            call(key)
        assert error.value.code == "InvalidKey"
    assert list(store.list("../")) == []
    assert list((tmp_path / "store").iterdir()) == []


# --- SQL --------------------------------------------------------------------------------

INJECTIONS = [
    "'", "''", "\\'", "'; DROP TABLE auditstore.events CASCADE; --", "' OR '1'='1", "1) OR (1=1",
    "%", "_", "$1", ":flow_id", "%(flow_id)s", "%s", "{}", "\\", "/*", "--", "$$", "E'\\x41'",
    "x' UNION SELECT ciphertext::text FROM auditstore.credentials --",
]  # fmt: skip


def test_sql_in_any_text_is_text(folder_site: Site) -> None:
    """Flow, lead, type, outcome, ids, names, options: found by that and nothing else."""
    cli = folder_site.cli
    for number, text in enumerate(INJECTIONS):
        folder_site.append([event(number, text, text, text)])
        folder_site.add(text, folder_site.at(f"s{number}"), region=text, options={text: text})
    for text in INJECTIONS:
        for option in ("--flow", "--lead", "--type", "--outcome"):
            found = cli.run("events", "list", option, text, "--json").stdout.splitlines()
            assert len(found) == 1, (option, text)
            assert json.loads(found[0])["reason"] == text
        for option in ("--after-id", "--before-id"):
            cli.run("events", "list", option, text)
        (stream,) = cli.json("stream", "list", "--flow", text)
        assert (stream["flow_id"], stream["region"], stream["options"]) == (
            text,
            text,
            {text: text},
        )
        assert "there is no event" in cli.error("events", "show", "--", text)[0]
        cli.error("credential", "remove", "--", text)
        cli.error("stream", "add", "--flow", "f", "--to", "s3://bucket-1/q", "--credential", text)
    assert len(cli.run("events", "list", "--json").stdout.splitlines()) == len(INJECTIONS)
    with folder_site.engine.connect() as connection:
        repository = EventRepository()
        for text in INJECTIONS:
            assert len(repository.get(connection, "x", flow_id=text)) == 0
            (stored,) = repository.lead(connection, text)
            assert repository.get(connection, stored.event.event_id, flow_id=text) == [stored]
            assert repository.find(connection, flow_id=text, type=text, outcome=text) == [stored]


def test_no_statement_is_put_together_from_values() -> None:
    """All SQL lies in one package, and what it formats into a statement are its own constants."""
    root = Path(__file__).parent.parent.parent / "auditstore"
    if not root.is_dir():
        import auditstore  # noqa: PLC0415  # the installed package is what is tested

        root = Path(str(auditstore.__file__)).parent
    formatted = {
        path.name: [line.strip() for line in path.read_text().splitlines() if 'text(f"' in line]
        for path in (root / "sql").glob("*.py")
    }
    assert {name: lines for name, lines in formatted.items() if lines} == {
        "server.py": ['return str(connection.scalar(text(f"SELECT {RUN}")))  # a constant of ours']
    }
