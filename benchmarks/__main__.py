"""All benchmarks, one after the other, in one table.

    python -m benchmarks [--quick] [--only NAME ...] [--json FILE] [--plots FOLDER]
        [--eventsourcing PYTHON] [--aws COMMAND] [--dlt PYTHON]

Each is a program of its own with servers of its own; see its first lines for what it does and how
to run it alone. All of them take about half an hour on two cores, `--quick` a minute or two. Peers
are other programs, best kept in environments of their own: the Python of one that has
`eventsourcing[postgres]==9.5.6`, the AWS command line, the Python of one that has
`dlt[sql_database,filesystem,s3,postgres]`. What is not there is named as not run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Step:
    """A program, with its arguments at full length and for a quick look."""

    name: str
    full: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()


STEPS = (
    Step("append", ("--rounds", "9"), ("--rounds", "2", "--singles", "60"), ("eventsourcing",)),
    Step("export", ("--rounds", "5"), ("--rounds", "1", "--events", "5000"), ("aws", "dlt")),
    Step("delays", ("--seconds", "60"), ("--seconds", "8", "--rounds", "1")),
    Step("reconcile", ("--rounds", "5"), ("--rounds", "1", "--events", "4000", "--objects", "500",
                                          "--kind", "threads")),
    Step("exporter_memory", (), ("--events", "20000")),
    Step("growth", (), ("--quick",)),
    Step("pages", (), ("--events", "50000", "--flows", "50", "--files", "200", "--times", "2")),
)  # fmt: skip


def rows(name: str, result: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """What was measured, the value, the target, whether it was met."""
    for each in result.get("ratios", ()):
        yield (each["what"], f"{each['median']:.2f} ({each['q1']:.2f}-{each['q3']:.2f})",
               f"at least {each['target']:g}", _yes(each["met"]))  # fmt: skip
    if "objects" in result:
        it = result["objects"]
        yield ("level files, objects a second", f"{it['rate']:,.0f}", f"at least {it['target']:,}",
               _yes(it["met"]))  # fmt: skip
    for what, each in result.get("memory", {}).items():
        yield (f"memory, {what}", f"{each['bytes'] / 1e6:.0f} MB",
               f"under {each['target'] / 1e6:.0f} MB", _yes(each["met"]))  # fmt: skip
    for each in result.get("figures", ()):
        yield (each["what"], f"{each['value']:.3g} {each['unit']} ({each['note']})",
               f"under {each['most']:g} {each['unit']}", _yes(each["met"]))  # fmt: skip
    if pages := result.get("pages"):
        slowest = max(pages, key=lambda page: page["median_ms"])
        yield (f"the slowest of {len(pages)} pages and lists: {slowest['page']}",
               f"{slowest['median_ms']:.0f} ms", f"under {result['target_ms']:.0f} ms",
               _yes(all(page["met"] for page in pages)))  # fmt: skip
    for what, why in result.get("not_run", {}).items():
        yield (f"{name}: {what}", "not run", "", why)


def _yes(met: bool) -> str:  # noqa: FBT001  # read as a word
    return "yes" if met else "no"


def draw(result: dict[str, Any], folder: Path) -> None:
    """A file for each plot."""
    import matplotlib as mpl  # noqa: PLC0415  # only who wants plots needs it

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  # after the choice

    for plot in result.get("plots", ()):
        figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
        for name, points in plot["lines"].items():
            marker = "o" if len(points) < 50 else None
            axes.plot(*zip(*points, strict=True), label=name, marker=marker)
        if plot["name"].startswith("growth") and plot["name"] != "growth-daemons":
            axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set(title=plot["title"], xlabel=plot["x"], ylabel=plot["y"])
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(folder / f"{plot['name']}.svg")
        plt.close(figure)


def run(step: Step, arguments: argparse.Namespace, folder: Path) -> dict[str, Any] | None:
    """One program to its end; ``None`` if it failed, which is told."""
    kept = folder / f"{step.name}.json"
    command = [sys.executable, str(HERE / f"{step.name}.py"), "--json", str(kept)]
    command += step.quick if arguments.quick else step.full
    for peer in step.peers:
        if (given := getattr(arguments, peer)) is not None:
            command += [f"--{peer}", given]
    print(f"\n=== {step.name}\n", flush=True)
    began = time.monotonic()
    if subprocess.run(command, check=False).returncode != 0:
        return None
    print(f"\n{step.name}: {time.monotonic() - began:.0f} s", flush=True)
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def options() -> argparse.Namespace:
    """What to run, and where the peers are."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    names = [step.name for step in STEPS]
    parser.add_argument("--quick", action="store_true", help="small, to see that they run")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--json", type=Path, help="keep all that was measured")
    parser.add_argument("--plots", type=Path, help="a folder for SVG files (extra `benchmark`)")
    for peer in ("eventsourcing", "aws", "dlt"):
        parser.add_argument(f"--{peer}", help="see above")
    return parser.parse_args()


def summary(results: dict[str, dict[str, Any]], failed: list[str]) -> None:
    """One table of all of it."""
    print("\n=== All\n\n| work | measured | target | met |\n|---|---|---|---|")
    for name, result in results.items():
        for row in rows(name, result):
            print("| " + " | ".join(row) + " |")
    for name in failed:
        print(f"| {name} | failed, see above | | |")


def main() -> int:
    """Run them; 1 if one of them failed. A target that is not met is no failure."""
    arguments = options()
    results: dict[str, dict[str, Any]] = {}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS:
            if step.name in arguments.only:
                result = run(step, arguments, Path(folder))
                if result is None:
                    failed.append(step.name)
                else:
                    results[step.name] = result
    summary(results, failed)
    if arguments.quick:
        print("\nQuick: to see that they run. Rates of so few events say little.")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    if arguments.plots:
        arguments.plots.mkdir(parents=True, exist_ok=True)
        for result in results.values():
            draw(result, arguments.plots)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
