"""Interleaved rounds, medians and spread, the machine they were taken on; a table and JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg


@dataclass(frozen=True, slots=True)
class Comparison:
    """One side's rate over another's, taken round by round, against a target."""

    what: str
    ours: str
    theirs: str
    target: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value against a bound that it must stay under."""

    what: str
    value: float
    unit: str
    most: float
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether it stayed under."""
        return self.value < self.most


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines over one axis: by name, points of x and y."""

    name: str
    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]]


@dataclass(slots=True)
class Rounds:
    """Rates by name, one a round; a round visits every name before the next one begins."""

    rates: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def time(self, name: str, count: int, work: Callable[[], object]) -> None:
        """Run ``work`` once; ``count`` things were done."""
        began = time.perf_counter()
        work()
        self.rates[name].append(count / (time.perf_counter() - began))

    def ratios(self, ours: str, theirs: str) -> list[float]:
        """Round by round, so that what slows the whole machine slows both sides."""
        return [a / b for a, b in zip(self.rates[ours], self.rates[theirs], strict=True)]


def spread(values: list[float]) -> dict[str, float]:
    """Median, quartiles and extremes."""
    low, middle, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    )
    return {"median": middle, "q1": low, "q3": high, "min": min(values), "max": max(values)}


def machine(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """What it was measured on, and what would make the figures worth less."""
    settings = (
        "server_version",
        "fsync",
        "synchronous_commit",
        "shared_buffers",
        "wal_sync_method",
    )
    cpu = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **{name: connection.execute(f"SHOW {name}").fetchone()[0] for name in settings},  # type: ignore[index]  # SHOW has a row
    }


def report(
    about: dict[str, Any], rounds: Rounds, comparisons: list[Comparison], not_run: dict[str, str]
) -> dict[str, Any]:
    """Print the tables; what goes into the JSON."""
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    print("\n| work | events/s, median | quartiles | rounds |\n|---|---|---|---|")
    for name, rates in rounds.rates.items():
        s = spread(rates)
        print(f"| {name} | {s['median']:,.0f} | {s['q1']:,.0f}-{s['q3']:,.0f} | {len(rates)} |")
    print("\n| ratio, round by round | median | quartiles | target | met |\n|---|---|---|---|---|")
    told = []
    for each in comparisons:
        s = spread(rounds.ratios(each.ours, each.theirs))
        met = s["median"] >= each.target
        told.append({"what": each.what, **s, "target": each.target, "met": met})
        print(
            f"| {each.what} | {s['median']:.2f} | {s['q1']:.2f}-{s['q3']:.2f}"
            f" | {each.target:g} | {'yes' if met else 'no'} |"
        )
    for name, why in not_run.items():
        print(f"\nNot run: {name}: {why}")
    return {
        "machine": about,
        "rates": {name: {**spread(rates), "all": rates} for name, rates in rounds.rates.items()},
        "ratios": told,
        "not_run": not_run,
    }


def tell(
    about: dict[str, Any], figures: list[Figure], plots: list[Plot] | None = None
) -> dict[str, Any]:
    """Print a table of figures; what goes into the JSON."""
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    print("\n| what | measured | target | met | |\n|---|---|---|---|---|")
    for each in figures:
        print(f"| {each.what} | {each.value:,.3g} {each.unit} | < {each.most:,g} {each.unit} |"
              f" {'yes' if each.met else 'no'} | {each.note} |")  # fmt: skip
    return {
        "machine": about,
        "figures": [asdict(each) | {"met": each.met} for each in figures],
        "plots": [asdict(each) for each in plots or []],
    }


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Keep a report."""
    path.write_text(json.dumps(result, indent=2) + "\n")
