"""Exports and LeadConduit's API beside outbox and bucket: every damage is found or an error."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from reconciliation.damage.checking import Checker
from reconciliation.damage.damages_export import (
    KINDS,
    Breaking,
    Drop,
    ExportDamage,
    combinations,
    kinds,
)
from reconciliation.damage.export import FORMS, Export, Form, Seen
from reconciliation.damage.picture import Layout, event_id_of
from reconciliation.damage.world import AGE, World
from support.fake_leadconduit import KEY, FakeLeadConduit, running_leadconduit
from support.ledger_builder import FLOW
from support.views import Waits

from auditstore.errors import ViewUnreadable
from auditstore.objects import ObjectStore
from auditstore.reconciliation import Finding, Kind
from auditstore.reconciliation.views import Pair, View, compare_views
from auditstore.reconciliation.views.events_api import Access
from auditstore.reconciliation.views.exports import ExportView
from auditstore.reconciliation.views.leadconduit import LeadConduitView
from auditstore.reconciliation.views.objects import BucketView
from auditstore.reconciliation.views.outbox import OutboxView
from auditstore.reconciliation.views.records import Window

MakeChecker = Callable[[str, Layout], Checker]
Other = Literal["outbox", "ndjson.gz", "json"]
CASES = 12
_PLACED = frozenset({Kind.UNREADABLE_LINE, Kind.DUPLICATE_EVENT, Kind.MISSING_EVENT})


class Bench:
    """One world, and its events as another view has them."""

    def __init__(self, world: World, other: Other, form: Form, path: Path) -> None:
        self.world = world
        self.planted: Counter[str] = Counter()
        self._other = other
        self._form = form
        self._path = path
        rows = world.untouched.rows
        self.events = {row.event_id: row.payload for row in rows.values()}
        self._source: View = ExportView(path)
        self._fake: FakeLeadConduit | None = None

    def ask(self, fake: FakeLeadConduit) -> None:
        """Take the API for the source."""
        self._fake = fake
        self._source = LeadConduitView(Access(KEY, fake.url), open_api=Waits().open_api)

    def export(self, *, packed: bool) -> Export:
        """A whole one."""
        facts = self.world.untouched.facts
        return Export.of(self._form, self.world.untouched.rows, facts.spare, packed=packed)

    def check(self, damages: Sequence[ExportDamage], *, packed: bool) -> Export:
        """Plant what can be; exactly that is found, or the error names the file."""
        export = self.export(packed=packed)
        planted = [damage for damage in damages if damage.plant(export)]
        self.planted.update(type(damage).__name__ for damage in planted)
        self.publish(export)
        if export.is_refused:
            with pytest.raises(ViewUnreadable) as error:
                self.compare()
            assert str(self._path) in error.value.message
            assert error.value.hint
            return export
        found = self.compare()
        expected = export.expectation(self.events)
        assert found == expected, (
            f"{planted}: missed {expected - found}, invented {found - expected}"
        )
        return export

    def compare(self) -> Counter[Seen]:
        """What the product finds, but for how many events are spelled otherwise."""
        findings: list[Finding] = []
        now = datetime.now(UTC)
        age = timedelta(seconds=AGE)
        store = self.world.hands.open()
        try:
            summary = compare_views(
                self.world.engine, self._pair(store), Window(FLOW, now - 2 * age, now - age / 2),
                report=lambda finding, _: findings.append(finding), done=lambda *_: None,
            )  # fmt: skip
        finally:
            store.close()
        seen = Counter(Seen.of(each) for each in findings if each.kind is not Kind.REWRITTEN)
        assert summary.result == ("differences" if seen else "reconciled")
        # What is no event, or is one again, has nothing but its place to be found by.
        assert all(each.object_key for each in findings if each.kind in _PLACED)
        return seen

    def _pair(self, store: ObjectStore) -> Pair:
        if self._other == "outbox":
            return Pair(self._source, OutboxView(self.world.engine))
        prefix = self.world.untouched.facts.prefix
        bucket = BucketView(store, prefix, name="the bucket", kind="cloud", flow_id=FLOW)
        return Pair(self._source, bucket, self.world.stream_id)

    def publish(self, export: Export) -> None:
        if self._fake is None:
            self._path.write_bytes(export.written())
        else:
            self._fake.events.clear()
            self._fake.events.update({event_id_of(item) or "": item for item in export.items})


@pytest.fixture
def bench(
    make_checker: MakeChecker, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Bench]:
    """A world in memory, one of the views beside it, and an export of it or the API."""
    other, form = request.param
    layout: Layout = "json" if other == "json" else "ndjson.gz"
    made = Bench(make_checker("memory", layout).world, other, form, tmp_path / "export")
    with running_leadconduit() as fake:
        if form == "api":
            made.ask(fake)
        yield made


OTHERS = ("outbox", "ndjson.gz", "json")
PAIRS = [(other, form) for other in OTHERS for form in FORMS if (other, form) != (OTHERS[1], "api")]


@pytest.mark.parametrize("bench", PAIRS, indirect=True, ids="-".join)
def test_damaged_sources(bench: Bench) -> None:
    """Each damage alone is found as what it is, and many at once, or the file is refused."""
    form = bench.export(packed=False).form
    for kind in kinds(form):
        for packed in (False, True) if form != "api" else (False,):
            _alone(bench, kind, packed=packed)
    assert bench.planted.keys() == {kind.__name__ for kind in kinds(form)}
    _combined(bench, form)


def _alone(bench: Bench, kind: type[ExportDamage], *, packed: bool) -> None:
    damage = _drawn(kind)
    export = bench.check([damage], packed=packed)
    untouched = bench.export(packed=packed)
    if isinstance(damage, Breaking):
        assert export.is_refused or not packed
    elif not export.is_refused:
        said = Counter(damage.expected(untouched))
        assert said == bench.compare(), damage


def _combined(bench: Bench, form: Form) -> None:
    seed = int(os.environ.get("AUDITSTORE_DAMAGE_SEED", "1"))
    cases = int(os.environ.get("AUDITSTORE_DAMAGE_CASES", str(CASES)))
    print(f"seed {seed}, {cases} cases; AUDITSTORE_DAMAGE_SEED and _CASES change them")

    @hypothesis.seed(seed)
    @settings(
        max_examples=cases, deadline=None, database=None, phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(combinations(form), st.booleans())
    def case(damages: list[ExportDamage], packed: bool) -> None:
        for name in {type(damage).__name__ for damage in damages}:
            event(f"drawn {name}")
        bench.check(damages, packed=packed)

    case()


def _drawn(kind: type[ExportDamage]) -> ExportDamage:
    found: list[ExportDamage] = []

    @hypothesis.seed(1)
    @settings(max_examples=2, database=None, phases=(Phase.generate,))
    @given(KINDS[kind])
    def draw(damage: ExportDamage) -> None:
        found.append(damage)

    draw()
    return found[-1]


@pytest.mark.parametrize("bench", [("outbox", "lines")], indirect=True, ids="-".join)
def test_what_is_not_expected_is_noticed(bench: Bench) -> None:
    """Where an event is dropped and the model is told nothing, the finding counts as invented."""
    bench.check([], packed=False)
    export = bench.export(packed=False)
    assert Drop(3).plant(export)
    bench.publish(export)
    assert bench.compare() != bench.export(packed=False).expectation(bench.events)
