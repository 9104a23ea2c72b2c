"""Files that somebody exported: every form, and every way in which one can be bad."""

from __future__ import annotations

import csv
import gzip
import io
import tracemalloc
from pathlib import Path

import orjson
import pytest
import sqlalchemy as sa
from support.snapshots import event_id
from support.views import append, compare, past

from auditstore.errors import AuditStoreError, ConfigurationError, ViewUnreadable
from auditstore.reconciliation import Kind
from auditstore.reconciliation.views import Record, Trouble, import_events
from auditstore.reconciliation.views.exports import ExportView
from auditstore.reconciliation.views.records import Window

MIB = 1024 * 1024


def table(rows: list[list[str]]) -> bytes:
    """CSV as spreadsheets write it."""
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


def flattened(*snapshots: bytes, extra: str = "vars.lead.id") -> bytes:
    """A table with a column a field."""
    columns = ["id", "type", "outcome", "vars.flow.id", extra]
    rows = [columns]
    for each in map(orjson.loads, snapshots):
        lead = each["vars"].get("lead", {}).get("id", "")
        rows.append([each["id"], each["type"], each["outcome"], each["vars"]["flow"]["id"], lead])
    return table(rows)


def written(form: str, made: list[bytes]) -> bytes:
    """The events in one of the forms."""
    if form == "array":
        return b" \n[" + b",\n ".join(made) + b"]\n"
    if form == "lines":
        return b"\n".join(made)
    return table([["name", "payload"], *(["x", each.decode()] for each in made)])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("form", ["array", "lines", "payload column"])
def test_whole_events(
    engine: sa.Engine, tmp_path: Path, form: str, packed: bool, mark: bytes
) -> None:
    """A JSON array, lines, or a column of events, gzip or not, told by their content alone."""
    made = [past(lead=f"lead-{number}", more="\u00e9\u2028", n=1.50) for number in range(5)]
    append(engine, *made[:4])
    content = mark + written(form, made)
    path = tmp_path / "export.dat"
    path.write_bytes(gzip.compress(content) if packed else content)

    findings, summary = compare(engine, ExportView(path))

    kinds = [each.kind for each in findings if each.kind != Kind.REWRITTEN]
    assert kinds == [Kind.MISSING_EVENT]
    assert findings[-1].lead_id == "lead-4"
    assert findings[-1].object_key is not None
    assert findings[-1].object_key.startswith("export.dat: ")
    assert summary.events_matched == 4


def test_columns_are_compared_as_far_as_they_go(engine: sa.Engine, tmp_path: Path) -> None:
    """A flattened table finds missing events and differing columns; the rest it cannot see."""
    same, changed, lost = past(more=1), past(), past(lead="lead-2")
    append(engine, same, changed)
    path = tmp_path / "export.csv"
    other = orjson.dumps(orjson.loads(changed) | {"outcome": "failure"})
    path.write_bytes(flattened(same, other, lost))
    findings, summary = compare(engine, ExportView(path))
    assert [each.kind for each in findings] == [
        Kind.CHANGED_EVENT, Kind.REWRITTEN, Kind.MISSING_EVENT,
    ]  # fmt: skip
    assert "differs in outcome" in findings[0].detail
    assert "as far as the export's columns tell" in findings[1].detail
    assert not findings[2].fixable
    assert summary.events_matched == 1
    with pytest.raises(ConfigurationError, match="columns of events and no whole ones"):
        import_events(engine, ExportView(path), Window(), actor="test", report=lambda _: None)


def test_bad_lines_are_findings(engine: sa.Engine, tmp_path: Path) -> None:
    """Each with its line; the others are compared, and duplicate ids are named."""
    one, two = past(), past()
    append(engine, one, two)
    other = orjson.dumps(orjson.loads(one) | {"reason": "other"})
    lines = [one, b"", b"not JSON", b'{"id": "short"}', two, one, other, b"[1]"]
    path = tmp_path / "export.ndjson"
    path.write_bytes(b"\r\n".join(lines))
    findings, summary = compare(engine, ExportView(path))
    assert [(each.kind, each.object_key) for each in findings] == [
        (Kind.UNREADABLE_LINE, "export.ndjson: line 3"),
        (Kind.UNREADABLE_LINE, "export.ndjson: line 4"),
        (Kind.DUPLICATE_EVENT, "export.ndjson: line 6"),
        (Kind.DUPLICATE_EVENT, "export.ndjson: line 7"),
        (Kind.UNREADABLE_LINE, "export.ndjson: line 8"),
    ]
    assert "the same content" in findings[2].detail
    assert "other bytes" in findings[3].detail
    assert summary.events_matched == 2


GOOD = past()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"), (b" \n ", "empty"), ("[]".encode("utf-16"), "UTF-16"),
        (b"[" + GOOD, "breaks after item"), (b"[" + GOOD + b", {", "breaks after item"),
        (b"[" + GOOD + b" " + GOOD + b"]", "breaks after item"),
        (b"[" + GOOD[:50], "breaks after item 0"),
        (gzip.compress(b"[" + GOOD + b"]")[:-9], "too early"),
        (gzip.compress(b"[]")[:-8] + b"12345678", "damaged"),
        (b"\x1f\x8b\x08\x00 nothing of the kind", "not gzip"),
        (b"id,type\nx,y\n", "lacks the columns outcome, vars.flow.id"),
        (b"just words\n", "lacks the columns id, type, outcome, vars.flow.id"),
        (b"id,id,type,outcome,vars.flow.id\n", "names a column twice: id"),
        (b'payload\n"{}', "line 2 is not CSV"), (b'payload\n"a"b\n', "line 2 is not CSV"),
        (b"payload\n\xff\xfe\n", "line 2 is not UTF-8"),
        (b"id,type\xff\n", "line 1 is not UTF-8"),
    ],
    ids=[f"case {number}" for number in range(17)],
)  # fmt: skip
def test_files_that_are_no_export(
    engine: sa.Engine, tmp_path: Path, content: bytes, words: str
) -> None:
    """What nobody can read to its end is an error that says where, and no clean report."""
    path = tmp_path / "export"
    path.write_bytes(content)
    with pytest.raises(ViewUnreadable, match=words) as error:
        compare(engine, ExportView(path))
    assert str(path) in error.value.message


@pytest.mark.parametrize("content", [b"[]", b"payload\n"])
def test_an_empty_export_is_no_clean_report(
    engine: sa.Engine, tmp_path: Path, content: bytes
) -> None:
    """It answers for everything, so everything is unknown to it."""
    append(engine, past(), past())
    path = tmp_path / "export"
    path.write_bytes(content)
    findings, _ = compare(engine, ExportView(path))
    assert [each.kind for each in findings] == [Kind.UNKNOWN_EVENT] * 2


def test_rows_that_are_wrong(tmp_path: Path) -> None:
    """Each is a finding with its line."""
    path = tmp_path / "export.csv"
    good = flattened(past()).decode()
    path.write_text(
        good + f"too,few\nno-id,source,success,flow-1,\n{event_id()},source,success,,\n"
    )
    told = list(ExportView(path).read(Window()))
    assert [type(each) for each in told] == [Record, Trouble, Trouble, Trouble]
    assert [each.place for each in told] == [f"export.csv: line {line}" for line in (2, 3, 4, 5)]


def test_an_export_is_a_cut_of_time_and_flows(engine: sa.Engine, tmp_path: Path) -> None:
    """Outside of its first and last event, and of its flows, it says nothing."""
    first, middle, last = past(hours=5), past(hours=4), past(hours=3)
    append(engine, past(hours=6), first, middle, last, past(hours=2), past(hours=4, flow="flow-2"))
    path = tmp_path / "export.ndjson"
    path.write_bytes(last + b"\n" + first)
    findings, summary = compare(engine, ExportView(path))
    assert [(each.kind, each.event_id) for each in findings] == [
        (Kind.UNKNOWN_EVENT, orjson.loads(middle)["id"])
    ]
    assert "only flow flow-1" in summary.views


def test_events_that_name_no_flow(tmp_path: Path) -> None:
    """They take the flow that the caller names, and are findings without one."""
    path = tmp_path / "export.ndjson"
    path.write_bytes(past(flow=None))
    (trouble,) = ExportView(path).read(Window())
    assert isinstance(trouble, Trouble)
    (record,) = ExportView(path, flow_id="flow-9").read(Window("flow-9"))
    assert isinstance(record, Record)
    assert record.flow_id == "flow-9"


def test_numbers_keep_their_digits(tmp_path: Path) -> None:
    """An array is taken apart and put together again without losing any."""
    path = tmp_path / "export.json"
    numbers = b'"a":1.10,"b":12345678901234567890123,"c":1E+400,"d":-0.0'
    path.write_bytes(b"[" + past()[:-1] + b"," + numbers + b"}]")
    (told,) = ExportView(path).read(Window())
    assert isinstance(told, Record)
    assert told.payload is not None
    assert numbers in told.payload


@pytest.mark.parametrize("form", ["array", "lines", "payload column"])
def test_memory_is_flat(tmp_path: Path, form: str) -> None:
    """Ten times the events take no more memory."""

    def peak(count: int) -> int:
        path = tmp_path / f"{count}"
        path.write_bytes(written(form, [past(filler="x" * 2000) for _ in range(count)]))
        tracemalloc.start()
        try:
            assert sum(1 for _ in ExportView(path).read(Window())) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(2000) < peak(400) + MIB


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """A folder, or nothing, is said to be none."""
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(AuditStoreError, match="cannot be read"):
            list(ExportView(path).read(Window()))
