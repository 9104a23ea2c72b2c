"""`reconcile` between LeadConduit, exports, foreign buckets and the outbox; and `import`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import sqlalchemy as sa
from support.commands import CommandLine
from support.fake_leadconduit import KEY, Answer, FakeLeadConduit, running_leadconduit
from support.stores import Place
from support.vandal import Vandal
from support.views import append, past


@pytest.fixture
def leadconduit() -> Iterator[FakeLeadConduit]:
    """LeadConduit's API without any event."""
    with running_leadconduit() as fake:
        yield fake


@pytest.fixture
def account(cli: CommandLine, leadconduit: FakeLeadConduit) -> CommandLine:
    """The command line with the key of an account."""
    more = {
        "AUDITSTORE_LEADCONDUIT_URL": leadconduit.url, "AUDITSTORE_LEADCONDUIT_API_KEY": KEY,
    }  # fmt: skip
    return CommandLine({**cli.environment, **more})


def test_leadconduit_against_the_outbox(
    account: CommandLine, engine: sa.Engine, leadconduit: FakeLeadConduit
) -> None:
    """A lost event is named and code 1; adopted, it is there, and the code is 0."""
    there, lost = past(), past(lead="lead-lost")
    leadconduit.add(there, lost)
    append(engine, there)
    event_id = orjson.loads(lost)["id"]
    said = account.run("reconcile", "--source", "leadconduit", code=1).stdout
    assert "LeadConduit against the outbox: DIFFERENCES" in said
    assert f"event {event_id}, recipient success, lead lead-lost" in said
    assert "by hour of the event's id (UTC), where they differ" in said
    page = account.run("reconcile", "--source", "leadconduit", "--format", "html", code=1).stdout
    assert "Events by time of the event" in page

    dry = account.run("reconcile", "--source", "leadconduit", "--adopt", "--dry-run", code=1)
    assert "it would be appended" in dry.stdout
    adopted = account.run(
        "reconcile", "--source", "leadconduit", "--adopt", "--format", "json"
    ).stdout
    report = json.loads(adopted)
    assert [(each["round"], each["kind"], each["repaired"]) for each in report["findings"]] == [
        (1, "missing-event", True)
    ]
    assert [each["result"] for each in report["streams"]] == ["differences", "reconciled"]
    assert report["exit_code"] == 0
    (one,) = account.json("import", "--list")
    assert (one["kind"], one["source"], one["appended"]) == ("adopt", "LeadConduit", 1)
    shown = account.json("events", "show", event_id)
    assert shown["import"]["import_id"] == one["import_id"]
    assert f"by adopt {one['import_id']} from" in account.run("events", "show", event_id).stdout
    ours = account.json("events", "show", orjson.loads(there)["id"])
    assert ours["import"] is None
    assert KEY not in "".join(account.printed)


def test_the_key_from_a_credential(cli: CommandLine, leadconduit: FakeLeadConduit) -> None:
    """Kept encrypted, named by its name, and never shown."""
    leadconduit.add(past())
    secret = json.dumps({"api_key": KEY})
    cli.run("credential", "add", "account", "--kind", "leadconduit", stdin=secret)
    assert cli.json("credential", "list")[0]["kind"] == "leadconduit"
    environment = {"AUDITSTORE_LEADCONDUIT_URL": leadconduit.url}
    arguments = ("reconcile", "--source", "leadconduit", "--credential", "account")
    cli.run(*arguments, code=1, environment=environment)
    assert "no key for LeadConduit" in cli.error("reconcile", "--source", "leadconduit")[0]
    wrong = json.dumps({"api_key": "wrong-key-1234567"})
    cli.run("credential", "rotate", "account", stdin=wrong)
    result = cli.run(*arguments, code=2, environment=environment)
    assert "refuses the API key (401)" in result.stderr
    printed = "".join(cli.printed)
    assert KEY not in printed
    assert "wrong-key" not in printed


def test_all_three_views(
    account: CommandLine, engine: sa.Engine, leadconduit: FakeLeadConduit, tmp_path: Path
) -> None:
    """One run compares each with each, asks LeadConduit once, and says where an event got lost."""
    cli = account
    url = (tmp_path / "out").as_uri()
    cli.run("stream", "add", "--flow", "flow-1", "--to", url, "--format", "json")
    made = [past() for _ in range(3)]
    append(engine, *made[:2])
    leadconduit.add(*made)
    cli.run("export", "once")
    (tmp_path / "out" / "lead-1" / f"{orjson.loads(made[0])['id']}.json").unlink()
    leadconduit.asked.clear()

    out = cli.run(
        "reconcile", "--source", "leadconduit", "--against", "outbox", "--against", "cloud",
        "--format", "json", code=1,
    ).stdout  # fmt: skip

    report = json.loads(out)
    found = {(each["stream_id"], each["kind"], each["event_id"]) for each in report["findings"]}
    lost, never = (orjson.loads(made[n])["id"] for n in (0, 2))
    assert found == {
        (0, "missing-event", never), (1, "missing-event", lost), (1, "missing-event", never),
        (1, "missing-file", lost),
    }  # fmt: skip
    assert [each["views"].partition(" of ")[0] for each in report["streams"]][:1] == [
        "LeadConduit against the outbox"
    ]
    assert len(report["streams"]) == 3
    # All of it once, and then only what came since.
    assert sum("after_id" not in each for each in leadconduit.asked) == 1


def test_a_foreign_bucket(cli: CommandLine, s3_place: Place, tmp_path: Path) -> None:
    """Compared with the outbox, imported with a stored credential, and then reconciled."""
    vandal = Vandal(s3_place)
    made = [past(), past()]
    for each in made:
        vandal.write(f"some/prefix/lead-1/{orjson.loads(each)['id']}.json", each)
    cli.run("credential", "add", "bucket", "--kind", "s3", stdin=json.dumps(s3_place.secret))
    where = (
        "--location", s3_place.destination.url, "--credential", "bucket", "--region", "us-east-1",
        "--endpoint-url", s3_place.destination.endpoint_url or "",
    )  # fmt: skip
    assert "unknown event (2)" in cli.run("reconcile", *where, code=1).stdout
    assert "2 events would be appended" in cli.run("import", *where, "--dry-run").stdout
    assert "2 events appended" in cli.run("import", *where).stdout
    assert "RECONCILED" in cli.run("reconcile", *where).stdout
    export = tmp_path / "export.ndjson"
    export.write_bytes(b"\n".join(made))
    assert "RECONCILED" in cli.run("reconcile", *where, "--source", str(export)).stdout
    assert "Recorded as import 2" in cli.run("import", str(export)).stdout
    assert "2 there already" in cli.run("import", "--list").stdout


def test_bad_things_in_an_export(cli: CommandLine, tmp_path: Path) -> None:
    """Imported as far as it goes; code 1 and the line, or code 2 for a file that is none."""
    export = tmp_path / "export.ndjson"
    export.write_bytes(past() + b"\nbroken\n" + past())
    result = cli.run("import", str(export), code=1)
    assert "2 events appended" in result.stdout
    assert "unreadable line: export.ndjson: line 2" in result.stdout
    findings = json.loads(cli.run("import", str(export), "--json", code=1).stdout)["findings"]
    assert [each["object_key"] for each in findings] == ["export.ndjson: line 2"]
    export.write_text("a,b\n1,2\n")
    assert "lacks the columns" in cli.error("import", str(export))[0]
    result = cli.run("reconcile", "--source", str(export), "--format", "json", code=2)
    (summary,) = json.loads(result.stdout)["streams"]
    assert summary["error"]["code"] == "view-unreadable"


def test_a_cut_run_goes_on(
    account: CommandLine, leadconduit: FakeLeadConduit, tmp_path: Path
) -> None:
    """With a checkpoint the second run does not fetch what the first one did."""
    leadconduit.add(*(past() for _ in range(4)))
    leadconduit.page = 2
    leadconduit.script = [Answer(), Answer(403)]
    checkpoint = tmp_path / "checkpoint"
    arguments = ("reconcile", "--source", "leadconduit", "--checkpoint", str(checkpoint))
    account.run(*arguments, code=2)
    assert checkpoint.exists()
    leadconduit.asked.clear()
    assert "4 expected, 0 found" in account.run(*arguments, code=1).stdout
    assert all("after_id" in each for each in leadconduit.asked)
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--against", "outbox"), "cannot be compared with itself"),
        (("--location", "s3://bucket", "--against", "outbox"), "in the place of --against"),
        (("--adopt",), "--adopt takes"), (("--dry-run",), "--dry-run goes with"),
        (("--checkpoint", "x"), "--checkpoint goes with"),
        (("--source", "leadconduit", "--repair"), "--repair puts back"),
        (("--source", "no-such-file"), "no view and no file"),
        (("--credential", "x"), "--credential is for"),
        (("--region", "x"), "are those of a --location"),
        (("--location", "s3://bucket/x", "--endpoint-url", "http://example.com"), "unencrypted"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(
    account: CommandLine, arguments: tuple[str, ...], words: str
) -> None:
    """Is refused, with the reason."""
    assert words in account.error("reconcile", *arguments)[0]


def test_import_needs_one_source(cli: CommandLine) -> None:
    """None, two, or the outbox itself is refused."""
    for arguments in ((), ("leadconduit", "--location", "s3://bucket"), ("outbox",)):
        assert "name what to import" in cli.error("import", *arguments)[0]
