"""A webhook and a command that are told of differences: real servers and programs, and their
failures."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.eventually import eventually

from auditstore.errors import ConfigurationError
from auditstore.hook_settings import HookSettings
from auditstore.reconciliation import Finding, Kind, Summary
from auditstore.reconciliation.results import Run
from auditstore.settings import Settings
from exporters.hooks import SHOWN, Command, HookFailed, Hooks, Webhook

RUN = Run(7, "flow-7", "files", datetime(2026, 11, 25, tzinfo=UTC), "host-1")


def summary(**counts: int) -> Summary:
    """With so many of each kind."""
    made = Summary(7, "flow-7", "s3://bucket/x", "files", seconds=1.5)
    for kind, count in counts.items():
        made.counts[Kind(kind.replace("_", "-"))] = count
    return made


def finding(number: int = 1, key: str = "some/key") -> Finding:
    """A missing file."""
    return Finding(Kind.MISSING_FILE, 7, "flow-7", "it is gone", sequence=number, object_key=key)


class Receiver:
    """An HTTP server that answers with ``answers`` in turn, then 204; ``None`` never answers."""

    def __init__(self) -> None:
        self.answers: list[int | None] = []
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.leave = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            """One request."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((self.path, dict(self.headers), body))
                answer = outer.answers.pop(0) if outer.answers else 204
                if answer is None:
                    outer.leave.wait()
                    return
                self.send_response(answer)
                if answer == 302:
                    self.send_header("Location", "/elsewhere")
                if answer == 429:
                    self.send_header("Retry-After", "3600")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/secret-token"

    def close(self) -> None:
        """Answer no more."""
        self.leave.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """On a free port."""
    made = Receiver()
    yield made
    made.close()


def webhook(url: str, *, secret: str | None = None, timeout: float = 5.0) -> Webhook:
    """One that does not rest long between its tries."""
    return Webhook(url, secret=secret, timeout=timeout, backoff=0.01, clock=lambda: 1764000000.9)


def script(tmp_path: Path, text: str) -> tuple[str, ...]:
    """A program's argv."""
    path = tmp_path / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return (str(path), "a word", "$HOME")


@contextmanager
def telling(*hooks: Any) -> Iterator[Hooks]:
    """Hooks that have told all at the end."""
    made = Hooks(list(hooks))
    yield made
    assert made.close(within=10)


# --- what is told ---------------------------------------------------------------------------


def test_differences_are_posted_and_signed(receiver: Receiver) -> None:
    """The JSON has counts and findings, and its signature covers it and its time."""
    with telling(webhook(receiver.url, secret="s3cret")) as hooks:
        hooks.finding(RUN, finding(3, key="odd/\udcff"))
        hooks.done(RUN, summary(missing_file=1, not_yet_due=4))
    ((path, headers, body),) = receiver.got
    told = json.loads(body)
    assert path == "/hook/secret-token"
    assert headers["Content-Type"] == "application/json"
    assert headers["Auditstore-Timestamp"] == "1764000000"
    expected = hmac.new(b"s3cret", b"1764000000." + body, hashlib.sha256).hexdigest()
    assert headers["Auditstore-Signature"] == f"sha256={expected}"
    assert (told["version"], told["event"]) == (1, "reconciliation.differences")
    assert (told["stream_id"], told["level"], told["result"]) == (7, "files", "differences")
    assert told["counts"] == {"missing-file": 1}
    assert [each["sequence"] for each in told["findings"]] == [3]
    assert told["findings"][0]["object_key"] == "odd/\\xff"
    assert told["findings_left_out"] == 0


def test_without_a_secret_nothing_is_signed(receiver: Receiver) -> None:
    """There is no header that proves nothing."""
    webhook(receiver.url).tell(b"{}")
    ((_, headers, _),) = receiver.got
    assert not [name for name in headers if name.startswith("Auditstore")]


def test_only_differences_are_told(receiver: Receiver) -> None:
    """A reconciled run and one that was broken off are not; of many findings the first are."""
    with telling(webhook(receiver.url)) as hooks:
        hooks.done(RUN, summary(not_yet_due=3))
        hooks.finding(RUN, finding())
        hooks.dropped(RUN)
        for number in range(SHOWN + 5):
            hooks.finding(RUN, finding(number))
        hooks.done(RUN, summary(missing_file=SHOWN + 5))
    ((_, _, body),) = receiver.got
    told = json.loads(body)
    assert (len(told["findings"]), told["findings_left_out"]) == (SHOWN, 5)
    assert told["findings"][0]["sequence"] == 0


def test_a_command_gets_the_same(tmp_path: Path) -> None:
    """On standard input, its words as they were given, without the store's own secrets."""
    os.environ["AUDITSTORE_SECRET_KEYS"] = "never-told"
    try:
        argv = script(tmp_path, f'cat > {tmp_path}/body; echo "$1|$2" > {tmp_path}/words;'
                                f" env > {tmp_path}/env")  # fmt: skip
        with telling(Command(argv, timeout=10)) as hooks:
            hooks.finding(RUN, finding())
            hooks.done(RUN, summary(missing_file=1))
    finally:
        del os.environ["AUDITSTORE_SECRET_KEYS"]
    assert json.loads((tmp_path / "body").read_text())["counts"] == {"missing-file": 1}
    assert (tmp_path / "words").read_text() == "a word|$HOME\n"
    assert "PATH=" in (tmp_path / "env").read_text()
    assert "never-told" not in (tmp_path / "env").read_text()


# --- what fails -----------------------------------------------------------------------------


def test_what_may_pass_is_tried_again(receiver: Receiver) -> None:
    """A busy server is asked four times in all, however late it would have it; then it failed."""
    receiver.answers = [503, 429, 500]
    webhook(receiver.url).tell(b"{}")
    assert len(receiver.got) == 4
    receiver.answers = [503] * 4
    with pytest.raises(HookFailed, match="answered 503"):
        webhook(receiver.url).tell(b"{}")
    assert len(receiver.got) == 8


@pytest.mark.parametrize("answer", [302, 400, 401, 404])
def test_a_refusal_is_told_once(receiver: Receiver, answer: int) -> None:
    """It is not tried again, and a redirect leads nowhere."""
    receiver.answers = [answer]
    with pytest.raises(HookFailed, match=f"answered {answer}") as error:
        webhook(receiver.url).tell(b"{}")
    assert len(receiver.got) == 1
    assert "secret-token" not in error.value.message + error.value.hint


def test_a_webhook_that_hangs(receiver: Receiver) -> None:
    """Each try ends with its time."""
    receiver.answers = [None] * 4
    with pytest.raises(HookFailed, match="not reached"):
        webhook(receiver.url, timeout=0.1).tell(b"{}")
    assert len(receiver.got) == 4


def test_a_webhook_that_is_not_there(receiver: Receiver) -> None:
    """It says what failed, and not the URL's secret."""
    receiver.close()
    with pytest.raises(HookFailed, match="not reached: NewConnectionError") as error:
        webhook(receiver.url).tell(b"{}")
    assert "secret-token" not in str(error.value)


def test_a_command_that_fails(tmp_path: Path) -> None:
    """Its code and its words are in the error; one that is not there says so."""
    with pytest.raises(HookFailed, match="left with 3: no mail today"):
        Command(script(tmp_path, "echo no mail today >&2; exit 3"), timeout=10).tell(b"{}")
    with pytest.raises(HookFailed, match="could not be started: No such file"):
        Command((str(tmp_path / "absent"),), timeout=10).tell(b"{}")


def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    """With what it started."""
    argv = script(tmp_path, f"sleep 600 & echo $! > {tmp_path}/pid; wait")
    with pytest.raises(HookFailed, match="did not end within 1 seconds"):
        Command(argv, timeout=1.0).tell(b"{}")
    pid = int((tmp_path / "pid").read_text())
    # Its parent is gone: whoever took it in may not have looked yet.
    eventually(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_hook_that_fails_hurts_no_other(receiver: Receiver, tmp_path: Path) -> None:
    """It is logged with what to do; the next hook and the next result are told all the same."""
    fails = Command(script(tmp_path, "exit 1"), timeout=10)
    with capture_logs() as logs, telling(fails, webhook(receiver.url)) as hooks:
        hooks.done(RUN, summary(missing_file=1))
        hooks.done(RUN, summary(missing_file=2))
        eventually(lambda: len(receiver.got) == 2)
    assert [each["hook"] for each in logs] == ["command", "command"]
    assert all(each["event"] == "hook failed" and each["hint"] for each in logs)


def test_results_do_not_pile_up(receiver: Receiver) -> None:
    """Behind a hook that hangs a bounded number waits, and done returns at once."""
    receiver.answers = [None]
    hooks = Hooks([webhook(receiver.url, timeout=60)])
    with capture_logs() as logs:
        hooks.done(RUN, summary(missing_file=1))
        eventually(lambda: receiver.got)
        for _ in range(101):
            hooks.done(RUN, summary(missing_file=1))
    assert [each["event"] for each in logs] == ["hooks not told"]
    assert not hooks.close(within=0.01)
    receiver.answers = []
    receiver.leave.set()
    assert hooks.close(within=10)
    assert len(receiver.got) >= 101


# --- the settings ---------------------------------------------------------------------------


def settings(**values: str) -> HookSettings:
    """From an environment."""
    env = {f"AUDITSTORE_RECONCILE_{name}": value for name, value in values.items()}
    return Settings.from_environment(env).hooks


def test_settings() -> None:
    """What is named is taken, nothing is the default, and no secret is in the repr."""
    assert Hooks.of(settings()) is None
    given = settings(
        WEBHOOK="https://hooks.example/T0KEN", WEBHOOK_SECRET="S3CRET",
        COMMAND="/bin/notify --to 'the ops'", HOOK_TIMEOUT="2.5",
    )  # fmt: skip
    assert given.command == ("/bin/notify", "--to", "the ops")
    assert given.timeout == 2.5
    assert "T0KEN" not in repr(given)
    assert "S3CRET" not in repr(given)
    assert Hooks.of(given) is not None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"WEBHOOK": "http://hooks.example/T0KEN"}, "unencrypted"),
        ({"WEBHOOK": "ftp://hooks.example/T0KEN"}, "no https URL"),
        ({"WEBHOOK": "https://"}, "no https URL"),
        ({"WEBHOOK": "https://host:99999/T0KEN"}, "no URL"),
        ({"WEBHOOK": "https://user:T0KEN@host/"}, "user name"),
        ({"WEBHOOK_INSECURE": "maybe"}, "INSECURE"),
        ({"COMMAND": "/bin/notify 'x"}, "cannot be taken apart"),
        ({"HOOK_TIMEOUT": "soon"}, "HOOK_TIMEOUT"),
        ({"HOOK_TIMEOUT": "0"}, "HOOK_TIMEOUT"),
        ({"HOOK_TIMEOUT": "nan"}, "HOOK_TIMEOUT"),
    ],
)
def test_unusable_settings(values: dict[str, str], says: str) -> None:
    """They are refused when the settings are read, without showing the URL."""
    with pytest.raises(ConfigurationError, match=says) as error:
        settings(**values)
    assert "T0KEN" not in str(error.value)
    assert error.value.hint


def test_plain_http_if_asked_for() -> None:
    """On this machine as it is, elsewhere when the operator says so."""
    assert settings(WEBHOOK="http://127.0.0.1:8000/x").webhook
    assert settings(WEBHOOK="http://hooks.example/x", WEBHOOK_INSECURE="yes").webhook
