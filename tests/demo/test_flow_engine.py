"""The reference flow engine records what LeadConduit documents, the same way every time."""

from __future__ import annotations

import ipaddress
import re
import statistics
from collections import Counter
from itertools import islice, pairwise
from typing import Any

import orjson
import pytest

from auditstore.demo import flow_engine
from auditstore.demo.flow_engine import FlowEngine, lead_events
from auditstore.demo.leads import TEST_LEAD, LeadGenerator

FLOW = "5f1e8a000000000000000001"
NOW = 1_793_500_000.25

EVERY = {
    "id", "type", "outcome", "reason", "vars", "start_timestamp", "end_timestamp", "ms", "wait_ms",
    "overhead_ms", "lag_ms", "total_ms", "host", "handler_version", "version", "cap_reached",
    "ping_limit_reached", "flow_ping_limits", "source_ping_limits", "expires_at", "firehose",
}  # fmt: skip
RECIPIENT = {
    "step_id", "key", "cost", "purchase_price", "sale_price", "revenue", "caps", "caps_reached",
    "module_id", "package_version", "credential", "credential_updated", "rule_set", "mappings",
    "pricing", "transactions",
}  # fmt: skip
FEEDBACK = {"recipient_event_id", "step_id", "module_id", "feedback", "request", "response"}
FIELDS = {
    "source": {"module_id", "package_version", "acceptance_criteria", "step_count", "appended",
               "request", "response"},
    "filter": {"rule_set"},
    "recipient": RECIPIENT,
    "retry": RECIPIENT | {"retry_status"},
    "feedback-received": FEEDBACK,
    "feedback-sent": FEEDBACK,
}  # fmt: skip
OUTCOMES = {
    "source": {"success", "failure", "error"},
    "filter": {"continue", "stop", "error"},
    "recipient": {"success", "failure", "error", "skip"},
    "retry": {"success", "failure", "error", "skip"},
    "feedback-received": {"success", "failure", "error"},
    "feedback-sent": {"success", "failure", "error"},
}
REQUEST = {"method", "uri", "version", "headers", "body", "timestamp"}
RESPONSE = {"status", "status_text", "version", "headers", "body", "timestamp"}


@pytest.fixture(scope="module")
def raw() -> list[bytes]:
    """The stream's first events: more than ten simulated minutes, so follow-ups are among them."""
    return list(lead_events(7, 48_000, FLOW))


@pytest.fixture(scope="module")
def events(raw: list[bytes]) -> list[dict[str, Any]]:
    return [orjson.loads(event) for event in raw]


def engine(seed: int = 0, now: float = NOW) -> FlowEngine:
    return FlowEngine(flow_id=FLOW, flow_name="Reference", seed=seed, clock=lambda: now)


def result_with(outcome: str) -> flow_engine.LeadResult:
    """The first lead of a seeded engine that ended this way."""
    made = engine()
    return next(r for r in iter(made.handle, None) if r.outcome == outcome)


def kinds(result: flow_engine.LeadResult) -> list[tuple[str, str]]:
    return [(e["type"], e["outcome"]) for e in map(orjson.loads, result.events)]


@pytest.mark.parametrize("kind", FIELDS)
def test_every_documented_field_is_there(kind: str, events: list[dict[str, Any]]) -> None:
    """Each type carries every field that is documented for it, with a documented outcome."""
    of_kind = [e for e in events if e["type"] == kind]
    assert of_kind
    for e in of_kind:
        assert not (EVERY | FIELDS[kind]) - e.keys()
        assert e["outcome"] in OUTCOMES[kind]
        assert e["reason"] or e["outcome"] in {"success", "continue"}
        known = e["vars"]
        assert known["flow"].keys() == {"id", "name"}
        assert known["source"].keys() == {"id", "name"}
        assert known["account"].keys() == {"id", "name", "sso_id"}
        assert known["submission"].keys() == {"timestamp", "ip"}
        assert known["flow"]["id"] == FLOW
        if "transactions" in e:
            assert known["recipient"].keys() == {"id", "name"}
            assert known["event_id"] == e["id"]
            assert {"price", "purchase_price"} <= known.keys()
        if "feedback" in e:
            assert known["feedback"]["type"] in {"return", "conversion"}
            assert known["feedback"].keys() == {"type", "timestamp", "reason"}
        for exchange in [e] if "request" in e else e.get("transactions", []):
            assert exchange["request"].keys() == REQUEST
            assert exchange["response"].keys() == RESPONSE


def test_no_other_types_occur(events: list[dict[str, Any]]) -> None:
    """The six documented types occur, and only those."""
    assert {e["type"] for e in events} == FIELDS.keys()


def test_times_add_up(events: list[dict[str, Any]]) -> None:
    """Times are integer milliseconds, and an event's span is as long as it says."""
    for e in events:
        assert all(type(e[f]) is int for f in EVERY if f.endswith(("ms", "timestamp")))
        assert e["ms"] == e["end_timestamp"] - e["start_timestamp"] >= 0
        assert e["total_ms"] == e["ms"] + e["wait_ms"]


def test_ids_are_unique_and_carry_their_second(events: list[dict[str, Any]]) -> None:
    """No id comes twice; its first eight digits are the second in which the step ended."""
    assert len({e["id"] for e in events}) == len(events)
    for e in events:
        assert re.fullmatch("[0-9a-f]{24}", e["id"])
        assert int(e["id"][:8], 16) == e["end_timestamp"] // 1000


def test_a_leads_ids_sort_in_order(events: list[dict[str, Any]]) -> None:
    """Within a lead, events sort by id as they were recorded, follow-ups last."""
    last: dict[str, str] = {}
    for e in events:
        lead = e["vars"]["lead"]["id"]
        assert last.get(lead, lead) < e["id"]
        last[lead] = e["id"]


def test_engines_of_other_flows_or_seeds_make_other_ids() -> None:
    """Two flows, or two seeds, at the same moment do not repeat each other's ids."""
    made = [
        FlowEngine(flow_id=flow, flow_name="x", seed=seed, clock=lambda: NOW).handle().lead_id
        for flow in (FLOW, FLOW[:-1] + "2")
        for seed in (0, 1)
    ]
    assert len(set(made)) == 4


def test_sizes_are_those_of_real_events(raw: list[bytes]) -> None:
    """Events are 2 to 5 KB, about 3.6 KB on average, one line each."""
    sizes = [len(event) for event in raw]
    assert 2000 <= min(sizes) <= max(sizes) <= 5000
    assert 3500 <= statistics.mean(sizes) <= 3800
    assert not any(b"\n" in event for event in raw)


def test_the_same_seed_gives_the_same_bytes() -> None:
    """Seed and clock decide every byte; another seed gives other ones."""
    first = list(lead_events(3, 500, FLOW))
    assert first == list(lead_events(3, 500, FLOW))
    assert first != list(lead_events(4, 500, FLOW))
    assert engine(5).handle() == engine(5).handle()


def test_the_stream_is_bounded_or_endless() -> None:
    """A count bounds the stream; None leaves it open."""
    assert len(list(lead_events(1, 10, FLOW))) == 10
    assert list(islice(lead_events(1, None, FLOW), 10)) == list(lead_events(1, 10, FLOW))


@pytest.mark.parametrize(
    ("outcome", "delivered", "source"),
    [
        ("accepted", "success", "success"),
        ("rejected", "failure", "failure"),
        ("errored", "error", "error"),
    ],
)
def test_a_delivered_lead_leaves_one_event_a_step(
    outcome: str, delivered: str, source: str
) -> None:
    """Filter, enhancement and delivery each leave an event, and the source's comes last."""
    assert kinds(result_with(outcome)) == [
        ("filter", "continue"), ("recipient", "success"), ("recipient", delivered),
        ("source", source),
    ]  # fmt: skip


def test_a_stopped_lead_leaves_nothing_after_the_filter() -> None:
    """A lead that the filter stops has the filter's event with its reason, and the source's."""
    result = result_with("stopped")
    assert kinds(result) == [("filter", "stop"), ("source", "failure")]
    stopped, source = map(orjson.loads, result.events)
    assert stopped["reason"] == source["reason"] != ""
    assert source["step_count"] == 1
    assert source["appended"] == {}


def test_outcomes_are_mixed() -> None:
    """A few hundred leads show every outcome; most are accepted."""
    made = engine()
    seen = Counter(made.handle().outcome for _ in range(300))
    assert seen.keys() == {"accepted", "rejected", "stopped", "errored"}
    assert seen.most_common(1)[0][0] == "accepted"


def test_data_grows_from_step_to_step() -> None:
    """What a step appended is known to the steps after it, and not to itself."""
    filtered, enhanced, delivered, source = (
        orjson.loads(e)["vars"] for e in result_with("accepted").events
    )
    assert "household" not in filtered
    assert "household" not in enhanced
    assert "household" in delivered
    assert "buyer" not in delivered
    assert {"household", "buyer"} <= source.keys()
    for before, after in pairwise([filtered, enhanced, delivered, source]):
        assert before["lead"] == after["lead"]


def test_lead_id_is_the_results() -> None:
    """Every event of a result names the result's lead."""
    result = result_with("accepted")
    assert {orjson.loads(e)["vars"]["lead"]["id"] for e in result.events} == {result.lead_id}


def test_the_last_event_ends_at_the_clock() -> None:
    """No event lies in the future of the injected clock."""
    ends = [orjson.loads(e)["end_timestamp"] for e in engine().handle().events]
    assert max(ends) == ends[-1] == int(NOW * 1000)


def test_an_errored_delivery_is_retried_once_due() -> None:
    """Nothing follows before the delay; after it a retry event of the same step and lead."""
    now = NOW
    made = FlowEngine(flow_id=FLOW, flow_name="x", clock=lambda: now, follow_up_s=60)
    result = next(r for r in iter(made.handle, None) if r.outcome == "errored")
    now += 59
    assert made.follow_ups() == []
    now += 1
    retries = [e for e in map(orjson.loads, made.follow_ups()) if e["type"] == "retry"]
    (retry,) = (e for e in retries if e["vars"]["lead"]["id"] == result.lead_id)
    assert retry["step_id"] == orjson.loads(result.events[-2])["step_id"]
    assert retry["retry_status"] == ("started" if retry["outcome"] == "error" else "completed")
    assert int(retry["id"][:8], 16) == int(now)


def test_feedback_names_the_delivery_it_is_about(events: list[dict[str, Any]]) -> None:
    """Feedback is received, then sent on, about an accepted delivery recorded before."""
    deliveries: dict[str, str] = {}
    received = 0
    for this, following in pairwise(events):
        if this["type"] in {"recipient", "retry"}:
            deliveries[this["id"]] = this["outcome"]
        if this["type"] == "feedback-received":
            received += 1
            assert deliveries[this["recipient_event_id"]] == "success"
            assert following["type"] == "feedback-sent"
            assert following["recipient_event_id"] == this["recipient_event_id"]
    assert received


def test_a_test_lead_is_marked_and_accepted() -> None:
    """The test lead is accepted whatever its luck, and every event says that it is a test."""
    for _ in range(50):
        result = flow_engine.test_lead(FLOW, lambda: NOW)
        assert result.outcome == "accepted"
    assert [k for k, _ in kinds(result)] == ["filter", "recipient", "recipient", "source"]
    for event in map(orjson.loads, result.events):
        assert event["vars"]["lead"]["test"]["normal"] is True
        assert event["vars"]["lead"]["first_name"]["raw"] == TEST_LEAD.first_name


def test_test_leads_never_share_an_id() -> None:
    """Two test leads in the same second are two leads."""
    first, second = (flow_engine.test_lead(FLOW, lambda: NOW) for _ in range(2))
    ids = [orjson.loads(e)["id"] for r in (first, second) for e in r.events]
    assert len(set(ids)) == 8
    assert first.lead_id != second.lead_id


def test_leads_are_plainly_fictional() -> None:
    """Addresses, numbers and networks are those reserved for examples."""
    reserved = [ipaddress.ip_network(n) for n in ("192.0.2.0/24", "198.51.100.0/24")]
    leads = LeadGenerator(11)
    for lead in [TEST_LEAD, *(leads.next() for _ in range(500))]:
        assert re.fullmatch(r"[a-z.-]+@example\.(com|net)", lead.email)
        assert re.fullmatch(r"\d{3}55501\d\d", lead.phone)
        assert any(ipaddress.ip_address(lead.ip) in network for network in reserved)


def test_typed_values_keep_what_was_typed() -> None:
    """A typed value has raw, normal and valid; a phone its area, exchange and line as well."""
    lead = TEST_LEAD.typed("0" * 24)
    assert lead["phone_1"]["normal"] == "5125550100"
    assert {lead["phone_1"][k] for k in ("area", "exchange", "line")} == {"512", "555", "0100"}
    for name, value in lead.items():
        assert name == "id" or value.keys() >= {"raw", "valid"}
