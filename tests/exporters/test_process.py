"""The daemon's real process, told to leave in the midst of its work."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.bucket_check import check_bucket
from support.commands import CommandLine, clean_environment
from support.eventually import eventually
from support.writers import Writers

from auditstore import streams
from auditstore.streams import Limits, NewStream
from exporters.stores.folder import FolderStore

FLOW = "flow-1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_nothing(
    database_url: str, engine: sa.Engine, tmp_path: Path, number: signal.Signals
) -> None:
    """It leaves with 0 within ten seconds; what is left then goes out with ``export once``."""
    folder = tmp_path / "store"
    new = NewStream(flow_id=FLOW, url=folder.as_uri(), limits=Limits(max_events=20, max_delay=0.1))
    with engine.begin() as connection:
        stream_id = streams.add(connection, new, actor="test").stream_id
    environment = {"AUDITSTORE_DATABASE_URL": database_url, "AUDITSTORE_LOG_FORMAT": "json"}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "auditstore", "export", "run"],
            env=clean_environment() | environment, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        with Writers(engine, [FLOW], 7, holds=0.1).running() as writers:
            eventually(lambda: len(list(folder.rglob("*.ndjson.gz"))) > 8, within=30, what="files")
            process.send_signal(number)
            began = time.monotonic()
            assert process.wait(10) == 0, log.read_text()
            assert time.monotonic() - began < 10
            # The writers never notice.
            more = writers.events + 20
            eventually(lambda: writers.events > more)
    finally:
        process.kill()
        process.wait()
    assert '"stopped"' in log.read_text()
    with engine.connect() as connection:
        assert streams.get(connection, stream_id).lease_owner is None
    CommandLine(environment).run("export", "once")
    checked = check_bucket(engine, stream_id, FolderStore(str(folder)), writers.committed[FLOW])
    assert checked.events == writers.events
