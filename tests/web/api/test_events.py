"""`GET /events` and `GET /events/{id}` as LeadConduit's tools use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest
import sqlalchemy as sa
from support.sample_events import snapshot

from auditstore.repository import EventRepository
from auditstore.web.api.state import ApiSettings

Refusal = Callable[..., dict[str, Any]]


def put(engine: sa.Engine, *snapshots: bytes) -> None:
    """Append snapshots."""
    with engine.begin() as connection:
        EventRepository().append(connection, list(snapshots))


def ids(response: httpx.Response) -> list[str]:
    """The ids of an answer, in its order."""
    assert response.status_code == 200, response.text
    return [each["id"] for each in response.json()]


def number(*numbers: int) -> list[str]:
    """The ids of sample events."""
    return [f"6900000000000000{each:08x}" for each in numbers]


def paged(client: httpx.Client, limit: int) -> Iterator[str]:
    """Every event as LeadConduit's users page: the oldest first, each page after the last id."""
    after: dict[str, str] = {}
    while found := ids(client.get("/events", params={"sort": "asc", "limit": limit} | after)):
        yield from found
        after = {"after_id": found[-1]}


def test_a_client_pages_through_everything(engine: sa.Engine, client: httpx.Client) -> None:
    """Each event once, in order, across flows; whatever the page size."""
    put(engine, *(snapshot(n, flow_id=f"flow-{n % 3}") for n in range(1, 131)))
    expected = number(*range(1, 131))
    assert list(paged(client, 7)) == expected
    assert list(paged(client, 130)) == expected
    assert ids(client.get("/events")) == expected[:-101:-1]
    assert ids(client.get("/events", params={"before_id": expected[3]})) == expected[2::-1]
    between = {"after_id": expected[3].upper(), "before_id": expected[7]}
    assert ids(client.get("/events", params=between)) == expected[6:3:-1]


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
@pytest.mark.parametrize("wanted", [{}, {"rules": '[{"lhv": "id", "op": "is not blank"}]'}])
def test_no_page_begins_between_flows_that_share_an_id(
    engine: sa.Engine, client: httpx.Client, limit: int, wanted: dict[str, str]
) -> None:
    """Paging by the last id skips no event: all that share it come on one page."""
    put(engine, *(snapshot(n, flow_id=flow) for n in (1, 2, 3) for flow in "abc"))
    expected = number(1, 1, 1, 2, 2, 2, 3, 3, 3)
    found: list[str] = []
    after: dict[str, str] = {}
    while page := ids(client.get(
        "/events", params={"sort": "asc", "limit": limit} | wanted | after
    )):  # fmt: skip
        assert len(page) <= limit + 2
        found += page
        after = {"after_id": page[-1]}
    assert found == expected


def test_more_flows_than_a_page_may_share_an_id(engine: sa.Engine, client: httpx.Client) -> None:
    """However many they are."""
    put(engine, *(snapshot(1, flow_id=f"flow-{n}") for n in range(120)), snapshot(2))
    assert ids(client.get("/events", params={"sort": "asc", "limit": 3})) == number(1) * 120


def test_snapshots_come_byte_for_byte(engine: sa.Engine, client: httpx.Client) -> None:
    """Numbers, repeated names, escapes and white space as they were appended."""
    odd = (
        b'{"id" : "690000000000000000000001", "x":1.50,"x":1e3, "s":"\\ud800\\u0041",'
        b'"vars":{"flow":{"id":"flow-1"}}, "big":12345678901234567890123}'
    )
    put(engine, odd, snapshot(2))
    assert client.get("/events").content == b"[" + snapshot(2) + b"," + odd + b"]"
    answer = client.get("/events/690000000000000000000001")
    assert answer.content == odd
    assert answer.headers["content-type"] == "application/json"
    assert client.get("/events", params={"after_id": "f" * 24}).content == b"[]"


def test_times_are_inclusive_on_both_sides(engine: sa.Engine, client: httpx.Client) -> None:
    """By the second in the id, which is all that an id tells."""
    put(engine, *(
        snapshot(0, id=f"{1_700_000_000 + second:08x}{0:016x}") for second in range(5)
    ))  # fmt: skip
    found = client.get("/events", params={
        "start": "2023-11-14T22:13:21Z", "end": "2023-11-14T23:13:23+01:00", "sort": "asc"
    })  # fmt: skip
    assert ids(found) == [f"{1_700_000_000 + second:08x}{0:016x}" for second in (1, 2, 3)]
    assert ids(client.get("/events", params={"end": "2023-11-14"})) == []
    assert len(ids(client.get("/events", params={"end": "9999-12-31T23:59:59Z"}))) == 5


def rules(client: httpx.Client, *given: Any) -> list[str]:
    """The ids that rules select."""
    text = orjson.dumps([
        each if isinstance(each, dict) else dict(zip(("lhv", "op", "rhv"), each, strict=False))
        for each in given
    ]).decode()  # fmt: skip
    asked = {"rules": text, "sort": "asc", "include": "id"}
    return ids(client.get("/events", params=asked))


def lead(n: int, **fields: Any) -> bytes:
    """A sample event with these of the lead's fields."""
    variables = {"flow": {"id": "f"}, "lead": {"id": "l"} | fields}
    return snapshot(n, vars=variables)


def test_rules_select_by_the_leads_own_values(engine: sa.Engine, client: httpx.Client) -> None:
    """Case does not count, typed values by what they were understood as, 5 is "5"."""
    put(
        engine,
        lead(1, state="TX", age="42", zip="01234", phone={"raw": "(512) 1", "normal": "5121"}),
        lead(2, state="tx", age=17, tags=["A", "b"]),
        lead(3, state="CA", note="   ", ok="yes"),
        lead(4, phone={"raw": "bad", "normal": None, "valid": False}, ok=False),
    )
    one, two, three, four = number(1, 2, 3, 4)
    assert rules(client, ("lead.state", "is equal to", "Tx")) == [one, two]
    assert rules(client, ("lead.state", "is not equal to", "TX")) == [three, four]
    assert rules(client, ("lead.age", "is greater than", "17")) == [one]
    assert rules(client, ("lead.age", "is less than or equal to", 42)) == [one, two]
    assert rules(client, ("lead.age", "is between", [18, 60])) == [one]
    assert rules(client, ("lead.age", "is equal to", "17")) == [two]
    assert rules(client, ("lead.zip", "is equal to", "1234")) == []
    assert rules(client, ("lead.phone", "is equal to", "5121")) == [one]
    assert rules(client, ("lead.phone", "includes", "AD")) == [four]
    assert rules(client, ("lead.tags", "includes", "B")) == [two]
    assert rules(client, ("lead.state", "is included in", "CA, TX")) == [one, two, three]
    assert rules(client, ("lead.state", "is not included in", ["ca"])) == [one, two, four]
    assert rules(client, ("lead.note", "is blank")) == [one, two, three, four]
    assert rules(client, ("lead.ok", "is true")) == [three]
    assert rules(client, ("lead.ok", "is false")) == [four]
    assert rules(client, ("lead.state", "matches pattern", "^[tc].$"),
                 ("outcome", "is equal to", "success")) == [one, two, three]  # fmt: skip
    either = {"op": "or", "rules": [
        {"lhv": "lead.state", "op": "is equal to", "rhv": "CA"},
        {"lhv": "lead.age", "op": "is equal to", "rhv": 17},
    ]}  # fmt: skip
    assert rules(client, either) == [two, three]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{", "query.rules"),
        ("{}", "query.rules"),
        ('["x"]', "query.rules[0]"),
        ('[{"op": "is blank"}]', "query.rules[0].lhv"),
        ('[{"lhv": "a", "op": "is like", "rhv": 1}]', "query.rules[0].op"),
        ('[{"lhv": "a", "op": "is equal to"}]', "query.rules[0].rhv"),
        ('[{"lhv": "a", "op": "is between", "rhv": 1}]', "query.rules[0].rhv"),
        ('[{"lhv": "a", "op": "matches pattern", "rhv": "("}]', "query.rules[0].rhv"),
        ('[{"lhv": "a", "op": "is equal to", "rhv": "{{lead.b}}"}]', "query.rules[0]"),
        ('[{"op": "xor", "rules": []}]', "query.rules[0].op"),
    ],
)
def test_wrong_rules_are_refused_at_their_place(
    client: httpx.Client, refused: Refusal, text: str, field: str
) -> None:
    """Never taken for rules that select everything."""
    said = refused(client.get("/events", params={"rules": text}), 422)
    assert said["code"] == "invalid-rules"
    assert said["errors"][0]["field"] == field


class TestBroadRules:
    """Rules that are true of few events among many."""

    @pytest.fixture
    def settings(self) -> ApiSettings:
        """A server that looks at 100 events at most."""
        return ApiSettings(rate=10_000, burst=10_000, looked_at=100)

    def test_are_refused_rather_than_answered_in_part(
        self, engine: sa.Engine, client: httpx.Client, refused: Refusal
    ) -> None:
        """A client would take a short page for the last one."""
        put(engine, *(snapshot(n, reason="rare" if n == 60 else "") for n in range(1, 151)))
        wanted = '[{"lhv": "reason", "op": "is equal to", "rhv": "rare"}]'
        asked = {"rules": wanted, "sort": "asc"}
        said = refused(client.get("/events", params=asked), 422)
        assert said["code"] == "rules-too-broad"
        assert ids(client.get("/events", params=asked | {"limit": "1"})) == number(60)
        assert ids(client.get("/events", params=asked | {"after_id": number(55)[0]})) == number(60)


def test_include_and_exclude_cut_fields(
    engine: sa.Engine, client: httpx.Client, refused: Refusal
) -> None:
    """Repeated or with commas, a field within a field by dots; not both at once."""
    put(engine, snapshot(1, big=0, note="").replace(b'"big":0', b'"big":%d' % 2**70))
    found = client.get("/events", params={"include": ["id,big", "vars.flow.id"]}).json()
    assert found == [{"id": number(1)[0], "big": 2**70, "vars": {"flow": {"id": "flow-1"}}}]
    (left,) = client.get("/events", params={"exclude": "vars.lead,note,reason"}).json()
    assert left["vars"] == {"flow": {"id": "flow-1"}}
    assert set(left) == {"id", "type", "outcome", "vars", "big"}
    refused(client.get("/events", params={"include": "id", "exclude": "vars"}), 422)
    deep = ".".join("a" * 33)
    assert refused(client.get("/events", params={"include": deep}), 422)["errors"][0]["field"] == (
        "query.include"
    )


def test_what_is_kept_of_an_event_is_kept_as_it_was_written(
    engine: sa.Engine, client: httpx.Client
) -> None:
    """Every digit, escape and repeated name; a name is the same however it is escaped."""
    kept = (
        b'"x":1.50,"x":1e400,"n":' + b"9" * 5000 + b',"d":0.10000000000000000555,'
        b'"s":"a\\\\\\"},{[","z":[{"reason":1}, [ ]],"e":"\\ud800"'
    )
    flow = b'"id":"690000000000000000000001","vars":{"flow":{"id":"f"}},'
    put(engine, b"{ " + flow + b'"r\\u0065ason" : {"a":[1,2]} ,' + kept + b" }")
    found = client.get("/events", params={"exclude": "reason"})
    assert found.content == b"[{" + flow + kept + b"}]"
    found = client.get("/events", params={"include": "x,n,d,s,z,e,vars.nothing,id.x,vars"})
    assert found.content == b'[{"vars":{"flow":{"id":"f"}},' + kept + b"}]"
    found = client.get("/events", params={"include": "vars.nothing"})
    assert found.content == b'[{"vars":{}}]'


def test_a_number_that_python_refuses_stops_no_rule(
    engine: sa.Engine, client: httpx.Client
) -> None:
    """One event with thousands of digits, or deeply nested, leaves the others to be found."""
    put(
        engine,
        snapshot(1, n=0).replace(b'"n":0', b'"n":' + b"9" * 5000),
        snapshot(2, n=0).replace(b'"n":0', b'"n":' + b"[" * 1000 + b"]" * 1000),
        snapshot(3, n=5),
    )
    assert rules(client, ("n", "is greater than", 10)) == number(1)
    assert rules(client, ("n", "is equal to", 5)) == number(3)
    assert rules(client, ("n", "is not blank")) == number(1, 2, 3)
    assert rules(client, ("n", "includes", "5")) == number(3)
    assert rules(client, ("n", "matches pattern", ".")) == number(1, 3)
    found = client.get("/events", params={"include": "id"})
    assert ids(found) == number(3, 2, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": "0"}, {"limit": "1001"}, {"limit": "x"}, {"sort": "up"}, {"after_id": "5"},
        {"start": "yesterday"}, {"end": "1700000000"}, {"strat": "2026-01-01"},
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused_by_name(
    client: httpx.Client, refused: Refusal, wrong: dict[str, str]
) -> None:
    """A mistyped one too: it would otherwise select everything."""
    said = refused(client.get("/events", params=wrong), 422)
    assert [each["field"] for each in said["errors"]] == [f"query.{next(iter(wrong))}"]


def test_an_event_that_is_not_there(client: httpx.Client, refused: Refusal) -> None:
    """404, and for what is no id 422."""
    refused(client.get(f"/events/{'0' * 24}"), 404)
    refused(client.get("/events/x"), 422)


def test_an_id_that_flows_share_asks_for_the_flow(
    engine: sa.Engine, client: httpx.Client, refused: Refusal
) -> None:
    """Never one of them by chance."""
    put(engine, snapshot(1, flow_id="a"), snapshot(1, flow_id="b"))
    path = f"/events/{number(1)[0]}"
    assert refused(client.get(path), 409)["code"] == "event-in-several-flows"
    assert client.get(path, params={"flow_id": "b"}).content == snapshot(1, flow_id="b")


def test_what_is_read_is_recorded(
    engine: sa.Engine, client: httpx.Client, client_of: Callable[[str], httpx.Client]
) -> None:
    """Every event that was answered, with the key; nothing for who is not let in."""
    put(engine, snapshot(1), snapshot(2))
    client.get("/events", params={"limit": 1})
    client.get(f"/events/{number(1)[0]}")
    client_of("wrong").get("/events")
    with engine.connect() as connection:
        rows = connection.execute(
            sa.text("SELECT actor, flow_id, event_id FROM auditstore.readings ORDER BY reading_id")
        ).all()
    assert [tuple(row) for row in rows] == [
        ("API key 1 (a-administrator)", "flow-1", number(each)[0]) for each in (2, 1)
    ]
