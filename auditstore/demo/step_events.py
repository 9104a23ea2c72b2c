"""The event that each kind of step records, field by field as LeadConduit documents it.

Each function is handed the event's id, the data known when the step began, the times and
what came of the step; it decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import orjson

from auditstore.demo.object_ids import fixed_id, opaque
from auditstore.demo.transactions import Json, iso, request, response, transaction

VERSION = "2.31.0"
RETENTION_MS = 90 * 86_400_000  # LeadConduit's own

SERVED_STATES = ["CA", "FL", "GA", "OH", "TX"]
MIN_AGE, MAX_AGE = 25, 64
FILTER_RULES: Json = {
    "op": "and",
    "rules": [
        {"lhv": "lead.state", "op": "is included in", "rhv": SERVED_STATES},
        {"lhv": "lead.age", "op": "is greater than or equal to", "rhv": MIN_AGE},
        {"lhv": "lead.age", "op": "is less than or equal to", "rhv": MAX_AGE},
    ],
}
ACCEPTANCE_RULES: Json = {
    "op": "and",
    "rules": [
        {"lhv": "lead.consent", "op": "is true"},
        {"lhv": "lead.phone_1", "op": "format is valid"},
    ],
}
#: What the source's form sends; the rest of ``vars.lead`` its server adds.
TYPED_IN = ("first_name", "last_name", "email", "phone_1", "postal_code", "age", "click_id")
MAPPINGS = [
    {"property": name, "value": f"{{{{lead.{name}}}}}"}
    for name in ("last_name", "email", "phone_1", "state")
]


@dataclass(frozen=True, slots=True)
class Recipient:
    """Where a step sends the lead: who, how, and under which key its answer is put."""

    name: str
    key: str
    host: str
    cost: float
    sale_price: float


ENHANCEMENT = Recipient("Household Lookup", "household", "lookup.example.net", 0.03, 0.0)
DELIVERY = Recipient("Example Buyer", "buyer", "leads.example.com", 0.0, 21.5)


@dataclass(frozen=True, slots=True)
class Span:
    """When a step ran, in epoch milliseconds, and how long the lead had waited for it."""

    start_ms: int
    end_ms: int
    wait_ms: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a recipient made of a lead; ``appended`` is what its response said beyond that.

    An ``error`` is one that says nothing about the lead: the recipient was out of order.
    """

    outcome: Literal["success", "failure", "error"]
    reason: str = ""
    appended: Json = field(default_factory=dict)

    def as_appended(self) -> Json:
        """What is put under the recipient's key, for the steps that follow."""
        return {"outcome": self.outcome, "reason": self.reason or None, **self.appended}


def filter_event(event_id: str, known: Json, span: Span, refusal: str) -> Json:
    """A filter lets the lead continue, or stops it for the reason in ``refusal``."""
    outcome = "stop" if refusal else "continue"
    return {
        **_event(event_id, "filter", known, span, outcome=outcome, reason=refusal),
        "step_id": fixed_id("filter"),
        "rule_set": FILTER_RULES,
    }


def recipient_event(
    event_id: str, known: Json, span: Span, recipient: Recipient, answer: Answer
) -> Json:
    """The lead was sent to a recipient. It earns its price only when it was accepted."""
    sold = recipient.sale_price if answer.outcome == "success" else 0.0
    terms = {"cost": recipient.cost, "price": recipient.sale_price}
    known = {
        **known, "recipient": {"id": fixed_id(recipient.name), "name": recipient.name},
        "price": recipient.sale_price, "purchase_price": recipient.cost, "event_id": event_id,
    }  # fmt: skip
    return {
        **_event(event_id, "recipient", known, span, outcome=answer.outcome, reason=answer.reason),
        "step_id": fixed_id(recipient.key), "key": recipient.key, "cost": recipient.cost,
        "purchase_price": recipient.cost, "sale_price": sold,
        "revenue": round(sold - recipient.cost, 4), "caps": _caps(recipient), "caps_reached": [],
        "module_id": f"reference-{recipient.key}.outbound", "package_version": VERSION,
        "credential": {"id": fixed_id(recipient.host), "name": recipient.name, "type": "token",
                       "token": "fictional"},
        "credential_updated": False, "rule_set": {"op": "and", "rules": []},
        "mappings": MAPPINGS, "pricing": {"type": "fixed", **terms},
        "transactions": [_sent(known, span, recipient, answer)],
    }  # fmt: skip


def retry_event(
    event_id: str, known: Json, span: Span, recipient: Recipient, answer: Answer
) -> Json:
    """An errored delivery tried again; it is completed once the recipient decides."""
    return {
        **recipient_event(event_id, known, span, recipient, answer),
        "type": "retry",
        "retry_status": "started" if answer.outcome == "error" else "completed",
    }


def source_event(
    event_id: str, known: Json, span: Span, answer: Answer, *, step_count: int, appended: Json
) -> Json:
    """The submission as a whole, recorded last: what came in, and what the source was told."""
    lead = known["lead"]
    body = orjson.dumps({name: lead[name]["raw"] for name in TYPED_IN}).decode()
    told = {"outcome": answer.outcome, "reason": answer.reason, "lead": {"id": lead["id"]},
            "price": DELIVERY.cost}  # fmt: skip
    token = opaque(f"{event_id} token", 144)
    uri = f"/flows/{known['flow']['id']}/sources/{known['source']['id']}/submit"
    return {
        **_event(event_id, "source", known, span, outcome=answer.outcome, reason=answer.reason),
        "module_id": "reference-form.inbound", "package_version": VERSION,
        "acceptance_criteria": {
            "rule_set": ACCEPTANCE_RULES, "outcome": "success", "reason": None},
        "step_count": step_count, "appended": appended,
        "request": request(uri, "flow.example.net", body, span.start_ms, token=token),
        "response": response(201, "Created", orjson.dumps(told).decode(), span.end_ms),
    }  # fmt: skip


def feedback_event(
    event_id: str, kind: Literal["feedback-received", "feedback-sent"], known: Json, span: Span,
    *, recipient_event_id: str,
) -> Json:  # fmt: skip
    """A return or a conversion, on its way from the recipient to the source."""
    feedback = known["feedback"]
    host = DELIVERY.host if kind == "feedback-received" else "flow.example.net"
    body = orjson.dumps({"lead_id": known["lead"]["id"], **feedback}).decode()
    return {
        **_event(event_id, kind, known, span, outcome="success", reason=""),
        "recipient_event_id": recipient_event_id, "step_id": fixed_id(DELIVERY.key),
        "module_id": f"reference-{DELIVERY.key}.outbound", "feedback": feedback,
        "request": request("/feedback", host, body, span.start_ms, token=opaque(event_id, 144)),
        "response": response(200, "OK", '{"received":true}', span.end_ms),
    }  # fmt: skip


def _caps(recipient: Recipient) -> list[Json]:
    return [{
        "id": fixed_id(recipient.key + " cap"), "name": "Daily", "limit": 5000,
        "period": "day", "rule_set": None,
    }]  # fmt: skip


def _sent(known: Json, span: Span, recipient: Recipient, answer: Answer) -> Json:
    lead = known["lead"]
    body = orjson.dumps({m["property"]: lead[m["property"]]["normal"] for m in MAPPINGS}).decode()
    uri = f"https://{recipient.host}/v2/leads"
    token = opaque(f"{known['event_id']} token", 144)
    asked = request(uri, recipient.host, body, span.start_ms, token=token)
    if answer.outcome == "error":
        status, word, said = 503, "Service Unavailable", '{"error":"try again later"}'
    else:
        status, word, said = 200, "OK", orjson.dumps(answer.as_appended()).decode()
    ms = span.end_ms - span.start_ms
    return transaction(asked, response(status, word, said, span.end_ms), ms)


def _event(event_id: str, kind: str, known: Json, span: Span, *, outcome: str, reason: str) -> Json:
    """What every event has, whatever its type."""
    ms = span.end_ms - span.start_ms
    flow = known["flow"]["id"]
    return {
        "id": event_id, "type": kind, "outcome": outcome, "reason": reason, "vars": known,
        "start_timestamp": span.start_ms, "end_timestamp": span.end_ms, "ms": ms,
        "wait_ms": span.wait_ms, "overhead_ms": 1 + ms // 50, "lag_ms": 0,
        "total_ms": ms + span.wait_ms, "host": "handler-1.example.net",
        "handler_version": VERSION, "version": VERSION, "cap_reached": False,
        "ping_limit_reached": False, "flow_ping_limits": [], "source_ping_limits": [],
        "expires_at": iso(span.end_ms + RETENTION_MS),
        "firehose": {"enabled": True, "services": {"aws": {
            "enabled": True, "credential_id": fixed_id("credential"),
            "bucket": "example-lead-audit", "prefix": flow}}},
    }  # fmt: skip
