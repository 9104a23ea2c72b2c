"""Alert rules, dashboard and reference speak of metrics that there are, in words that parse."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
import promql_parser
import pytest
import sqlalchemy as sa
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from support.eventually import eventually
from support.site import Site
from support.watched import watching

from auditstore.cli import main
from auditstore.sql import server
from exporters.reconciling import Reconciling, ReconcilingConfig

DOCS = Path(__file__).parent.parent / "docs"
ALERTS: dict[str, Any] = yaml.safe_load((DOCS / "monitoring" / "alerts.yml").read_text())
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARD: dict[str, Any] = json.loads((DOCS / "monitoring" / "grafana.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
TARGETS: list[dict[str, Any]] = [each for panel in PANELS for each in panel.get("targets", [])]
_SELECTED = re.compile(r"\b((?:auditstore|process)_[a-z_]+)")
_DURATION = re.compile(r"([0-9]+(ms|[smhdwy]))+")


@pytest.fixture
def site(database_url: str) -> Iterator[Site]:
    """A fresh database, no stream and no daemon yet."""
    made = Site(database_url)
    yield made
    made.close()


def an_hour_later_each_time() -> Callable[[sa.Connection], datetime]:
    """A clock by which everything is due soon."""
    asked = itertools.count()
    return lambda connection: server.clock(connection) + timedelta(hours=next(asked))


@pytest.fixture
def shown(site: Site) -> dict[str, set[str]]:
    """The labels of every metric that a real exporter shows after its first file."""
    stream_id = site.add()
    quick = ReconcilingConfig(tick=0.05)
    reconciling = Reconciling(site.new_engine(), site.open, quick, now=an_hour_later_each_time())
    with watching(site) as watched:
        watched.start()
        site.append(stream_id, 3)
        eventually(lambda: watched.port.total("delivered_files_total") == 1)
        site.stores[stream_id].objects.clear()
        reconciling.start()
        eventually(lambda: watched.port.total("reconciliation_differences") > 0)
        reconciling.stop()
        eventually(lambda: watched.port.total("stream_bound_seconds") > 0)
        names: dict[str, set[str]] = {}
        for name, has in watched.port.samples():
            names.setdefault(name, set()).update(label for label, _ in has)
    return names


def selectors(expr: Any) -> Iterator[Any]:
    """Every vector selector in a parsed expression."""
    if isinstance(expr, promql_parser.VectorSelector):
        yield expr
    elif isinstance(expr, promql_parser.MatrixSelector):
        yield from selectors(expr.vector_selector)
    elif isinstance(expr, promql_parser.BinaryExpr):
        yield from selectors(expr.lhs)
        yield from selectors(expr.rhs)
    elif isinstance(expr, promql_parser.Call):
        for argument in expr.args:
            yield from selectors(argument)
    elif isinstance(expr, promql_parser.NumberLiteral):
        return
    else:
        yield from selectors(expr.expr)


def check(expr: str, shown: dict[str, set[str]]) -> None:
    """The expression parses, and selects metrics that there are by labels that they have."""
    expr = expr.replace("$__rate_interval", "5m")
    found = list(selectors(promql_parser.parse(expr)))
    # No metric escapes the walk above.
    assert sorted(each.name for each in found) == sorted(_SELECTED.findall(expr))
    assert found, expr
    for each in found:
        assert each.name in shown, f"{each.name} of {expr}"
        for matcher in each.matchers.matchers:
            assert matcher.name in shown[each.name], f"{matcher.name} of {expr}"


def test_each_alert_selects_metrics_that_there_are(shown: dict[str, set[str]]) -> None:
    """Every expression parses, and names metrics and labels of a real exporter's page."""
    assert RULES
    for rule in RULES:
        check(rule["expr"], shown)


def test_each_panel_selects_metrics_that_there_are(shown: dict[str, set[str]]) -> None:
    """So does every query of the dashboard, its variables' included."""
    assert TARGETS
    for target in TARGETS:
        check(target["expr"], shown)
    queries = [each["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    for query in queries:
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", query).groups()  # type: ignore[union-attr]  # it fails if not
        assert label in shown[metric]


def test_the_reference_has_every_metric_and_no_other(shown: dict[str, set[str]]) -> None:
    """With the labels that each has."""
    page = (DOCS / "reference" / "metrics.md").read_text()
    rows = re.findall(r"^\| `((?:auditstore|process)_\w+)` \|([^|]*)\|", page, re.MULTILINE)
    told = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    bare = {
        re.sub(r"_(bucket|count|sum)$", "", name): labels - {"le"}
        for name, labels in shown.items()
    }  # fmt: skip
    assert told == bare


def test_the_alert_rules_are_a_rule_file() -> None:
    """As Prometheus reads one: known fields, durations, a name once; each says what to do."""
    assert set(ALERTS) == {"groups"}
    for group in ALERTS["groups"]:
        assert set(group) == {"name", "rules"}
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert {"alert", "expr", "labels", "annotations"} <= set(rule)
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert _DURATION.fullmatch(rule.get("for", "0s"))
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description"}
        assert all(isinstance(text, str) for text in rule["annotations"].values())
    # The how-to has them all, with their severity.
    page = (DOCS / "how-to" / "monitor.md").read_text()
    rows = re.findall(r"^\| `(AuditStore\w+)` \| (\w+) \|", page, re.MULTILINE)
    assert rows == [(rule["alert"], rule["labels"]["severity"]) for rule in RULES]


def test_each_command_in_an_alert_exists() -> None:
    """What an alert tells the operator to run can be run."""
    text = " ".join(rule["annotations"]["description"] for rule in RULES)
    found = re.findall(r"`auditstore ([a-z ]+?)(?: \{\{[^}]*\}\})?`", text)
    assert len(found) == text.count("`") // 2
    for words in found:
        command: click.Command = main
        for word in words.split():
            assert isinstance(command, click.Group)
            named = command.get_command(click.Context(command), word)
            assert named is not None, words
            command = named


def test_the_dashboard_is_one() -> None:
    """Grafana's own types take all of it, and give back what was in it."""
    register_default_plugins()
    taken = Dashboard.from_json(DASHBOARD)
    assert _missing(DASHBOARD, json.loads(json.dumps(taken, cls=JSONEncoder))) == []


def _missing(wanted: Any, found: Any, path: str = "") -> list[str]:
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [
            each for key, value in wanted.items()
            for each in _missing(value, found.get(key, "(nothing)"), f"{path}/{key}")
        ]  # fmt: skip
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = enumerate(zip(wanted, found, strict=True))
        return [each for n, (one, two) in pairs for each in _missing(one, two, f"{path}/{n}")]
    return [] if wanted == found else [path]


def test_the_dashboard_is_laid_out() -> None:
    """Panels have ids of their own, a title, a description, and overlap nowhere."""
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        assert panel["title"]
        assert panel["type"] == "row" or (panel["description"] and panel["targets"])
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
