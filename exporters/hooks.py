"""Tells a webhook and a command of the differences that a scheduled run found.

Both get the same JSON. What they do, or fail to do, is logged and changes nothing: the result is
in the database and in the metrics by then.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import orjson
import structlog
import urllib3

from auditstore.errors import AuditStoreError
from auditstore.hook_settings import HookSettings
from auditstore.reconciliation import Finding, Summary
from auditstore.reconciliation.report_csv import writable
from auditstore.reconciliation.results import Run

log = structlog.get_logger("hooks")

#: Of the shape described in ``docs/how-to/reconcile-on-schedule.md``.
VERSION: Final = 1
#: How many findings are told; the others are counted.
SHOWN: Final = 100
_WAITING: Final = 100
_SHORTENED: Final = 300
# What a command need not know: where the database is, and the keys of all secrets.
_OURS: Final = ("AUDITSTORE_", "PG")


class HookFailed(AuditStoreError):
    """A hook did not take what it was told."""

    code = "hook-failed"


class Hook(Protocol):
    """One receiver. ``kind`` is its name in the log."""

    kind: str

    def tell(self, body: bytes) -> None:
        """Hand over a JSON document; HookFailed if it was not taken within the time."""


class Webhook:
    """An HTTP POST, tried ``tries`` times in all where another try may help."""

    kind = "webhook"

    def __init__(
        self,
        url: str,
        *,
        secret: str | None,
        timeout: float,
        tries: int = 4,
        backoff: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._secret = secret
        self._clock = clock
        # A server's wish for a later try could be hours; a redirect could lead anywhere.
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(total=timeout),
            retries=urllib3.Retry(
                total=tries - 1, redirect=False, backoff_factor=backoff, allowed_methods=None,
                status_forcelist=(408, 425, 429, 500, 502, 503, 504), raise_on_status=False,
                respect_retry_after_header=False,
            ),
        )  # fmt: skip

    def tell(self, body: bytes) -> None:
        """Send it; any answer of 200 to 299 will do."""
        headers = {"Content-Type": "application/json", "User-Agent": "auditstore"}
        if self._secret is not None:
            stamp = str(int(self._clock()))
            signed = hmac.new(self._secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256)
            headers["Auditstore-Timestamp"] = stamp
            headers["Auditstore-Signature"] = f"sha256={signed.hexdigest()}"
        host = urlsplit(self._url).hostname
        try:
            # Nothing of the answer's body is read: it may never end.
            answer = self._pool.request(
                "POST", self._url, body=body, headers=headers, redirect=False,
                preload_content=False,
            )  # fmt: skip
        except urllib3.exceptions.HTTPError as error:
            cause = getattr(error, "reason", None) or error
            raise HookFailed(
                f"the webhook at {host} was not reached: {type(cause).__name__}",
                hint="Check AUDITSTORE_RECONCILE_WEBHOOK, and that this host reaches it.",
            ) from error
        answer.close()
        if not 200 <= answer.status < 300:
            raise HookFailed(
                f"the webhook at {host} answered {answer.status}",
                hint="Its own log says why. AUDITSTORE_RECONCILE_WEBHOOK must name the final "
                "address: redirects are not followed.",
            )


class Command:
    """A program, started without a shell, with the JSON on its standard input."""

    kind = "command"

    def __init__(self, argv: tuple[str, ...], *, timeout: float) -> None:
        self._argv = argv
        self._timeout = timeout

    def tell(self, body: bytes) -> None:
        """Run it; it has to leave with 0 within the time, after which it is ended."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(_OURS)
        }
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
            given.write(body)
            given.seek(0)
            try:
                process = subprocess.Popen(  # noqa: S603  # the operator's own command, no shell
                    self._argv, stdin=given, stdout=subprocess.DEVNULL, stderr=said,
                    env=environment, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise HookFailed(
                    f"the command {self._argv[0]} could not be started: {error.strerror or error}",
                    hint="AUDITSTORE_RECONCILE_COMMAND must begin with a program's full path.",
                ) from error
            try:
                code = process.wait(self._timeout)
            except subprocess.TimeoutExpired as error:
                # With all that it started and that stayed in its group.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise HookFailed(
                    f"the command {self._argv[0]} did not end within {self._timeout:g} seconds",
                    hint="It was ended. Let it do its work in the background, or raise "
                    "AUDITSTORE_RECONCILE_HOOK_TIMEOUT.",
                ) from error
            if code:
                said.seek(0)
                words = said.read(_SHORTENED).decode(errors="replace").strip()
                raise HookFailed(
                    f"the command {self._argv[0]} left with {code}: {words or 'it said nothing'}",
                    hint="Try it by hand with the JSON of docs/how-to/reconcile-on-schedule.md.",
                )


class Hooks:
    """A ``ResultSink`` that tells every hook, one after the other, on a thread of its own."""

    def __init__(self, hooks: list[Hook]) -> None:
        self._hooks = hooks
        self._kept: dict[Run, list[Finding]] = {}
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._telling = False
        self._closed = False

    @classmethod
    def of(cls, settings: HookSettings) -> Hooks | None:
        """Those that are configured; ``None`` if none is."""
        hooks: list[Hook] = []
        if settings.webhook is not None:
            hooks.append(
                Webhook(settings.webhook, secret=settings.secret, timeout=settings.timeout)
            )
        if settings.command:
            hooks.append(Command(settings.command, timeout=settings.timeout))
        return cls(hooks) if hooks else None

    # --- the sink -------------------------------------------------------------------------

    def finding(self, run: Run, finding: Finding) -> None:
        """Kept, if it is among the first."""
        if finding.kind.is_difference:
            kept = self._kept.setdefault(run, [])
            if len(kept) < SHOWN:
                kept.append(finding)

    def done(self, run: Run, summary: Summary) -> None:
        """Tell, if there are differences; also if the comparison then broke off."""
        findings = self._kept.pop(run, [])
        if not summary.differences:
            return
        with self._changed:
            if len(self._waiting) >= _WAITING or self._closed:
                log.warning(
                    "hooks not told", stream=run.stream_id, comparison=run.level,
                    cause="too many results wait for the hooks",
                    hint="Find out why the hooks take so long; `auditstore status` has the result.",
                )  # fmt: skip
                return
            self._waiting.append(orjson.dumps(_document(run, summary, findings)))
            if not self._telling:
                self._telling = True
                # None of a pool: those are waited for at the end of the process.
                threading.Thread(target=self._tell, name="hooks", daemon=True).start()

    def dropped(self, run: Run) -> None:
        """Forget it."""
        self._kept.pop(run, None)

    def close(self, *, within: float = 0.0) -> bool:
        """Take nothing more; whether all was told within so many seconds."""
        with self._changed:
            self._closed = True
            return self._changed.wait_for(lambda: not self._telling, within)

    def _tell(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._telling = False
                    self._changed.notify_all()
                    return
                body = self._waiting.popleft()
            for hook in self._hooks:
                try:
                    hook.tell(body)
                except HookFailed as error:
                    log.warning("hook failed", hook=hook.kind, cause=error.message, hint=error.hint)
                except Exception:
                    log.exception("unexpected failure", hook=hook.kind)


def _document(run: Run, summary: Summary, findings: list[Finding]) -> dict[str, Any]:
    return {
        "version": VERSION,
        "event": "reconciliation.differences",
        "stream_id": run.stream_id,
        "flow_id": run.flow_id,
        "url": summary.url,
        "level": run.level,
        "began_at": run.began_at,
        "seconds": summary.seconds,
        "exporter": run.by,
        "result": summary.result,
        "differences": summary.differences,
        "counts": {
            kind.value: count for kind, count in summary.counts.items() if kind.is_difference
        },
        "findings": [_told(each) for each in findings],
        "findings_left_out": summary.differences - len(findings),
    }


def _told(finding: Finding) -> dict[str, Any]:
    values = {
        name: writable(value) if isinstance(value, str) else value
        for name, value in asdict(finding).items()
        if name not in {"stream_id", "flow_id"}
    }
    return values | {"kind": finding.kind.value}
