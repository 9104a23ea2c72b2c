"""The command that shows an object."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from auditstore.destinations import parse_destination
from auditstore.reconciliation.showing import show_command


@pytest.mark.parametrize("key", ["a/b.ndjson.gz", "-rf.json", "it's $(touch x) `y`;*.json", "ü.gz"])
def test_a_shell_shows_what_lies_in_a_folder(tmp_path: Path, key: str) -> None:
    """Whatever the name is, the command writes this object's content and does nothing else."""
    path = tmp_path / key
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(b"content") if key.endswith(".gz") else b"content")
    before = sorted(tmp_path.rglob("*"))

    command = show_command(parse_destination(f"file://{tmp_path}"), key)

    assert command is not None
    shown = subprocess.run(["sh", "-c", command], capture_output=True, check=True, cwd=tmp_path)
    assert shown.stdout == b"content"
    assert sorted(tmp_path.rglob("*")) == before


def test_clouds() -> None:
    """By their own tools, at the endpoint that the stream has."""
    s3 = parse_destination("s3://bucket/p", "http://127.0.0.1:9000")
    assert show_command(s3, "p/a b.ndjson.gz") == (
        "aws s3 cp 's3://bucket/p/a b.ndjson.gz' - --endpoint-url http://127.0.0.1:9000 | zcat"
    )
    azure = parse_destination("azure://container/p")
    assert show_command(azure, "p/a.json") == (
        "az storage blob download --container-name container --name p/a.json --file /dev/stdout"
        " --no-progress --output none"
    )


def test_what_cannot_be_typed_has_no_command() -> None:
    """A key that a terminal could obey is not put into a line to be pasted."""
    destination = parse_destination("s3://bucket")
    for key in ("a\nb", "\x1b[2J", "a\u202eb", "\udcff"):
        assert show_command(destination, key) is None
