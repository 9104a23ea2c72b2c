"""A reference flow engine: source, filter, enhancement, delivery, and what comes later.

It decides and describes; it never touches a database. The caller appends the events it
returns through the repository, in a transaction of the caller's own.
"""

from __future__ import annotations

import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import orjson

from auditstore.demo import step_events
from auditstore.demo.leads import TEST_LEAD, Lead, LeadGenerator
from auditstore.demo.object_ids import ObjectIds, fixed_id, opaque
from auditstore.demo.step_events import DELIVERY, ENHANCEMENT, Answer, Span
from auditstore.demo.transactions import Json, iso

Outcome = Literal["accepted", "rejected", "stopped", "errored"]

SOURCES = ("Example Quotes", "Sample Savings")
ACCOUNT = {"id": fixed_id("account"), "name": "Example Marketing", "sso_id": fixed_id("sso")}
#: Where the clock of :func:`lead_events` starts: 2026-11-01T00:00:00Z.
STREAM_START = 1_793_491_200.0

_OUTCOMES: dict[str, Outcome] = {
    "success": "accepted",
    "failure": "rejected",
    "error": "errored",
}


@dataclass(frozen=True, slots=True)
class LeadResult:
    """What became of a lead, and the JSON of each event in the order it was recorded."""

    lead_id: str
    outcome: Outcome
    events: list[bytes]


@dataclass(frozen=True, slots=True)
class _FollowUp:
    """Something that happens to a delivered lead after the flow was done with it."""

    due_ms: int
    kind: Literal["retry", "feedback"]
    known: Json
    recipient_event_id: str


class FlowEngine:
    """Handles leads of one flow; the same seed and clock give the same bytes.

    ``clock`` gives seconds since the epoch: a lead's last event ends at that time. Retries
    of errored deliveries, returns and conversions come ``follow_up_s`` later: in life that
    is minutes to days, a demo cannot wait so long. At most 1,000 of them are kept waiting.
    """

    def __init__(
        self,
        *,
        flow_id: str,
        flow_name: str,
        seed: int = 0,
        clock: Callable[[], float] = time.time,
        follow_up_s: float = 2.0,
    ) -> None:
        self._clock = clock
        self._follow_up_ms = int(follow_up_s * 1000)
        self._ids = ObjectIds(f"{flow_id} {seed}")
        self._draw = random.Random(seed).random  # noqa: S311 (reproducible, not secret)
        self._leads = LeadGenerator(seed)
        self._waiting: deque[_FollowUp] = deque(maxlen=1000)
        self._flow = {"id": flow_id, "name": flow_name}

    def handle(self, lead: Lead | None = None) -> LeadResult:
        """Take one lead (by default the next generated one) through the flow."""
        lead = lead or self._leads.next()
        refusal = _refusal(lead)
        looking_up, delivering = 30 + int(self._draw() * 170), 80 + int(self._draw() * 820)
        end_ms = self._now_ms()
        start_ms = end_ms - 3 - (0 if refusal else looking_up + delivering)
        lead_id = self._ids.make(start_ms)
        known = self._submitted(lead, lead_id, start_ms)
        filtered = Span(start_ms, start_ms + 2, 1)
        events = [step_events.filter_event(self._id(filtered), known, filtered, refusal)]
        appended: Json = {}
        if refusal:
            verdict = Answer("failure", refusal)
        else:
            span = Span(filtered.end_ms, filtered.end_ms + looking_up)
            household = self._household(lead, lead_id)
            events.append(self._sent(known, span, ENHANCEMENT, household))
            appended[ENHANCEMENT.key] = household.as_appended()
            known = {**known, ENHANCEMENT.key: appended[ENHANCEMENT.key]}
            span = Span(span.end_ms, end_ms - 1)
            verdict = Answer("success", "", {"reference": lead_id}) if lead.test else self._decide()
            events.append(self._sent(known, span, DELIVERY, verdict))
            self._expect_follow_up(known, verdict, end_ms, events[-1]["id"])
            appended[DELIVERY.key] = verdict.as_appended()
            known = {**known, DELIVERY.key: appended[DELIVERY.key]}
        whole = Span(start_ms, end_ms)
        events.append(
            step_events.source_event(
                self._id(whole), known, whole, verdict, step_count=len(events), appended=appended
            )
        )
        outcome = "stopped" if refusal else _OUTCOMES[verdict.outcome]
        return LeadResult(lead_id, outcome, [orjson.dumps(event) for event in events])

    def follow_ups(self) -> list[bytes]:
        """The retry and feedback events that have come due by now, in order."""
        now_ms = self._now_ms()
        events: list[Json] = []
        while self._waiting and self._waiting[0].due_ms <= now_ms:
            due = self._waiting.popleft()
            events += (
                self._retried(due, now_ms) if due.kind == "retry" else self._heard(due, now_ms)
            )
        return [orjson.dumps(event) for event in events]

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _id(self, span: Span) -> str:
        """Events are created when their step ends."""
        return self._ids.make(span.end_ms)

    def _submitted(self, lead: Lead, lead_id: str, at_ms: int) -> Json:
        source = SOURCES[lead.source % len(SOURCES)]
        return {
            "lead": lead.typed(lead_id), "flow": self._flow,
            "source": {"id": fixed_id(source), "name": source}, "account": ACCOUNT,
            "submission": {"timestamp": iso(at_ms), "ip": lead.ip},
        }  # fmt: skip

    def _sent(
        self, known: Json, span: Span, recipient: step_events.Recipient, answer: Answer
    ) -> Json:
        return step_events.recipient_event(self._id(span), known, span, recipient, answer)

    def _household(self, lead: Lead, lead_id: str) -> Answer:
        income = 30 + int(self._draw() * 12) * 10
        found = {"income_band": f"{income}k-{income + 10}k", "adults": 1 + lead.age % 3,
                 "homeowner": self._draw() < 0.6, "score": round(self._draw(), 4),
                 "token": opaque(f"{lead_id} household", 120)}  # fmt: skip
        return Answer("success", "", found)

    def _decide(self) -> Answer:
        """The buyer takes four in five, rejects most others, and is at times out of order."""
        luck = self._draw()
        if luck < 0.80:
            return Answer("success", "", {"reference": f"EX-{int(self._draw() * 1e9):09d}"})
        if luck < 0.94:
            return Answer("failure", "Duplicate lead" if luck < 0.88 else "No coverage in area")
        return Answer("error", "Unexpected response: 503 Service Unavailable")

    def _expect_follow_up(
        self, known: Json, answer: Answer, at_ms: int, recipient_event_id: str
    ) -> None:
        """Every errored delivery is retried; one accepted lead in twenty is heard of again."""
        due_ms = at_ms + self._follow_up_ms
        if answer.outcome == "error":
            self._waiting.append(_FollowUp(due_ms, "retry", known, recipient_event_id))
        elif answer.outcome == "success" and self._draw() < 0.05:
            self._waiting.append(_FollowUp(due_ms, "feedback", known, recipient_event_id))

    def _retried(self, due: _FollowUp, now_ms: int) -> list[Json]:
        span = Span(now_ms - 80 - int(self._draw() * 400), now_ms)
        answer = self._decide()
        event = step_events.retry_event(self._id(span), due.known, span, DELIVERY, answer)
        self._expect_follow_up(due.known, answer, now_ms, event["id"])
        return [event]

    def _heard(self, due: _FollowUp, now_ms: int) -> list[Json]:
        returned = self._draw() < 0.5
        feedback = {"type": "return" if returned else "conversion", "timestamp": iso(now_ms - 20),
                    "reason": "Disconnected number" if returned else None}  # fmt: skip
        known = {**due.known, "feedback": feedback}
        received, passed_on = Span(now_ms - 20, now_ms - 10), Span(now_ms - 10, now_ms)
        return [
            step_events.feedback_event(
                self._id(received), "feedback-received", known, received,
                recipient_event_id=due.recipient_event_id,
            ),
            step_events.feedback_event(
                self._id(passed_on), "feedback-sent", known, passed_on,
                recipient_event_id=due.recipient_event_id,
            ),
        ]  # fmt: skip


def lead_events(
    seed: int, count: int | None, flow_id: str, *, start: float = STREAM_START
) -> Iterator[bytes]:
    """``count`` events (``None``: without end) of a flow that takes 20 leads a second.

    Time is simulated from ``start``, in seconds since the epoch, so the same arguments give
    the same bytes. Retries and feedback come ten minutes after their lead.
    """
    return islice(_stream(seed, flow_id, start), count)


def _stream(seed: int, flow_id: str, start: float) -> Iterator[bytes]:
    leads = 0
    engine = FlowEngine(
        flow_id=flow_id, flow_name="Reference flow", seed=seed,
        clock=lambda: start + leads * 0.05, follow_up_s=600.0,
    )  # fmt: skip
    while True:
        leads += 1
        yield from engine.handle().events
        yield from engine.follow_ups()


def test_lead(
    flow_id: str,
    clock: Callable[[], float],
    *,
    flow_name: str = "Test lead",  # noqa: PT028  # a lead, not a test of ours
) -> LeadResult:
    """One lead marked as a test, accepted, with the same events in the same shape each time.

    Its ids are new with every call, within one second too: an id that came twice with other
    times in its event would be a conflict.
    """
    engine = FlowEngine(
        flow_id=flow_id, flow_name=flow_name, seed=secrets.randbits(64), clock=clock
    )
    return engine.handle(TEST_LEAD)


def _refusal(lead: Lead) -> str:
    """The filter's reason to stop the lead, or nothing."""
    if lead.state not in step_events.SERVED_STATES:
        return f"State {lead.state} is not served"
    if not step_events.MIN_AGE <= lead.age <= step_events.MAX_AGE:
        return f"Age {lead.age} is outside {step_events.MIN_AGE} to {step_events.MAX_AGE}"
    return ""
