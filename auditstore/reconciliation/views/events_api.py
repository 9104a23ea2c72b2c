"""LeadConduit's Events API: one page of events after another, politely, until the end.

``GET /events`` with ``sort=asc`` and ``after_id``, HTTP Basic with user ``API``. What passes by
itself (429, 5xx, timeouts, resets, answers cut short) is asked again, later each time, and as
late as ``Retry-After`` says; everything else is an error that says what to do. The key is sent
to the address that was named and nowhere else: redirects are not followed.
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import httpx
import tenacity

from auditstore.destinations import check_encryption
from auditstore.errors import (
    AuditStoreError,
    ConfigurationError,
    LeadConduitChanged,
    LeadConduitRefused,
    LeadConduitUnavailable,
    ViewUnreadable,
)
from auditstore.events import is_event_id

#: LeadConduit's own address.
DEFAULT_URL: Final = "https://app.leadconduit.com"
#: The most events that it gives at once.
PAGE: Final = 1000
_MAX_PAGE_BYTES: Final = 512 * 1024 * 1024
_WHITE: Final = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API is and the key to it, which is left out of the repr.

    ``per_second`` bounds the requests. One request is tried ``attempts`` times, with waits up to
    ``longest_wait`` seconds between; a longer Retry-After is an error that says so.
    """

    key: str = field(repr=False)
    url: str = DEFAULT_URL
    per_second: float = 2.0
    attempts: int = 8
    longest_wait: float = 300.0
    timeout: float = 60.0

    def __post_init__(self) -> None:
        """Refuse an address that cannot be one, or that would carry the key unencrypted."""
        try:
            parts = httpx.URL(self.url)
            urlsplit(self.url)
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigurationError("LeadConduit's URL cannot be read", hint=_URL_HINT) from error
        if parts.scheme not in {"http", "https"} or not parts.host:
            raise ConfigurationError("LeadConduit's URL is no HTTP URL", hint=_URL_HINT)
        if parts.userinfo or parts.query or parts.fragment:
            raise ConfigurationError(
                "LeadConduit's URL has a user, a query or a fragment", hint=_URL_HINT
            )
        check_encryption(self.url, {})
        if not self.key.isascii() or not self.key.isprintable() or not self.key:
            raise ConfigurationError(
                "LeadConduit's API key is empty, or holds a character that no key has",
                hint="Copy the key again, without line breaks.",
            )


_URL_HINT: Final = f"Set AUDITSTORE_LEADCONDUIT_URL like {DEFAULT_URL}, and nothing secret in it."


@dataclass(frozen=True, slots=True)
class Page:
    """Events in the order of their ids, each with its JSON as it was sent."""

    events: tuple[tuple[str, bytes], ...]


class _Passing(Exception):
    """Worth another try; ``after`` is what the server asked for, in seconds."""

    def __init__(self, what: str, after: float | None = None) -> None:
        super().__init__(what)
        self.after = after


class EventsApi:
    """A client for one run. ``clock`` counts seconds, ``now`` is the time of day."""

    def __init__(
        self,
        access: Access,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._access = access
        self._sleep = sleep
        self._clock = clock
        self._now = now
        self._next_at = clock()
        self._client = httpx.Client(
            auth=("API", access.key), timeout=access.timeout, follow_redirects=False,
            headers={"Accept": "application/json"},
        )  # fmt: skip

    def close(self) -> None:
        """Leave the server."""
        self._client.close()

    def page(self, *, after_id: str | None, before_id: str | None, start: datetime | None) -> Page:
        """The next events; an empty page is the end.

        ``after_id`` and ``before_id`` are exclusive, ``start`` inclusive and only for a first
        page. Raises the errors of this module's kind, and LeadConduitChanged for a page that
        does not go on from ``after_id`` in ascending order.
        """
        query: dict[str, str | int] = {"sort": "asc", "limit": PAGE}
        if after_id is not None:
            query["after_id"] = after_id
        elif start is not None:
            query["start"] = start.astimezone(UTC).isoformat().replace("+00:00", "Z")
        if before_id is not None:
            query["before_id"] = before_id
        page = _parsed(self._asked(query), after_id)
        _check_order(page, after_id)
        return page

    def _asked(self, query: dict[str, str | int]) -> bytes:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Passing),
            stop=tenacity.stop_after_attempt(self._access.attempts),
            wait=_Waits(self._access.longest_wait),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(self._once, query)
        except _Passing as error:
            raise LeadConduitUnavailable(
                f"LeadConduit did not answer in {self._access.attempts} tries: {error}",
                hint="Run it again later. With --checkpoint FILE a run that was cut goes on "
                "where it was.",
            ) from error

    def _once(self, query: dict[str, str | int]) -> bytes:
        self._take_turn()
        try:
            with self._client.stream(
                "GET", f"{self._access.url.rstrip('/')}/events", params=query
            ) as answer:
                self._judge(answer)
                body = bytearray()
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > _MAX_PAGE_BYTES:
                        raise _malformed(f"a page has more than {_MAX_PAGE_BYTES} bytes")
                return bytes(body)
        except (httpx.TimeoutException, httpx.TransportError) as error:
            raise _Passing(f"{type(error).__name__}: {error}") from error
        except httpx.DecodingError as error:
            raise _malformed(f"its content encoding is damaged: {error}") from error

    def _judge(self, answer: httpx.Response) -> None:
        status = answer.status_code
        if status == httpx.codes.OK:
            return
        if status == httpx.codes.TOO_MANY_REQUESTS or status >= 500:
            after = self._retry_after(answer.headers.get("Retry-After"))
            if after is not None and after > self._access.longest_wait:
                raise LeadConduitUnavailable(
                    f"LeadConduit answered {status} and wants to be left alone for "
                    f"{after:.0f} seconds",
                    hint="Run it again after that. With --checkpoint FILE a run that was cut "
                    "goes on where it was.",
                )
            raise _Passing(f"it answered {status}", after)
        raise _refused(status)

    def _retry_after(self, value: str | None) -> float | None:
        if value is None:
            return None
        if value.strip().isascii() and value.strip().isdigit():
            return float(value)
        try:
            moment = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (aware - self._now()).total_seconds())

    def _take_turn(self) -> None:
        """Wait until the rate allows the next request."""
        wait = self._next_at - self._clock()
        if wait > 0:
            self._sleep(wait)
        self._next_at = max(self._next_at, self._clock()) + 1 / self._access.per_second


class _Waits(tenacity.wait.wait_base):
    """What the server asks for, or else longer each time with chance in it."""

    def __init__(self, longest: float) -> None:
        self._own = tenacity.wait_random_exponential(multiplier=1, max=longest)

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        outcome = retry_state.outcome
        error = None if outcome is None else outcome.exception()
        if isinstance(error, _Passing) and error.after is not None:
            return error.after
        return self._own(retry_state)


def _refused(status: int) -> AuditStoreError:
    if status == httpx.codes.UNAUTHORIZED:
        return LeadConduitRefused(
            "LeadConduit refuses the API key (401)",
            hint="Give the key of this account with AUDITSTORE_LEADCONDUIT_API_KEY or "
            "`auditstore credential add NAME --kind leadconduit`; free accounts have no events "
            "by API.",
        )
    if status == httpx.codes.FORBIDDEN:
        return LeadConduitRefused(
            "LeadConduit says that this key may not read events (403)",
            hint="Use a key of a user who may.",
        )
    if 300 <= status < 400:
        return LeadConduitRefused(
            f"LeadConduit's URL redirects ({status}), and a key is not sent elsewhere",
            hint=_URL_HINT,
        )
    return LeadConduitRefused(
        f"LeadConduit answered {status}, which trying again does not mend", hint=_URL_HINT
    )


def _malformed(why: str) -> ViewUnreadable:
    return ViewUnreadable(
        f"LeadConduit's answer is malformed: {why}",
        hint="Check AUDITSTORE_LEADCONDUIT_URL. If it is right, run it again later; what was "
        "found by then is true, and not all.",
    )


def _parsed(body: bytes, after_id: str | None) -> Page:
    """The array taken apart, each event with the very characters it was sent in."""
    where = "on the first page" if after_id is None else f"on the page after {after_id}"
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise _malformed(f"it is not UTF-8, at byte {error.start} {where}") from error
    at = _skip(text, 0)
    if not text.startswith("[", at):
        raise _malformed(f"it is no JSON array {where}")
    decoder = json.JSONDecoder()
    found: list[tuple[str, bytes]] = []
    at = _skip(text, at + 1)
    if text.startswith("]", at):
        return _ended(text, at, found, where)
    while True:
        try:
            element, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise _malformed(f"event {len(found) + 1} {where} is damaged or cut short") from error
        found.append((_id_of(element, len(found) + 1, where), text[at:end].encode()))
        at = _skip(text, end)
        if text.startswith("]", at):
            return _ended(text, at, found, where)
        if not text.startswith(",", at):
            raise _malformed(f"after event {len(found)} {where} it is damaged or cut short")
        at = _skip(text, at + 1)


def _ended(text: str, at: int, found: list[tuple[str, bytes]], where: str) -> Page:
    if _skip(text, at + 1) != len(text):
        raise _malformed(f"something follows the array {where}")
    return Page(tuple(found))


def _skip(text: str, at: int) -> int:
    white = _WHITE.match(text, at)
    assert white is not None  # noqa: S101  # it matches nothing, too
    return white.end()


def _id_of(element: object, number: int, where: str) -> str:
    event_id = element.get("id") if isinstance(element, dict) else None
    if not isinstance(event_id, str) or not is_event_id(event_id):
        # Without its id nobody knows where the next page begins.
        raise _malformed(f"event {number} {where} has no id of 24 hex digits")
    return event_id.lower()


def _check_order(page: Page, after_id: str | None) -> None:
    before = after_id
    for event_id, _ in page.events:
        if before is not None and event_id <= before:
            what = "repeat" if event_id == before else "go back to"
            raise LeadConduitChanged(
                f"LeadConduit's events {what} {event_id} after {before}, though they were asked "
                "for in ascending order",
                hint="Its data changed under this run, or something between alters its answers. "
                "Run it again; if it stays, export the events to a file and compare that.",
            )
        before = event_id
