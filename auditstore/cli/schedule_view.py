"""How the reconciliations of a stream are shown: what came of the last, and when the next is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from rich.text import Text

from auditstore.cli.display import heading, plain, show
from auditstore.cli.wording import age, ago, number
from auditstore.sql.schedules import Schedule
from auditstore.streams import Stream

_STYLES: Final = {"reconciled": "green", "differences": "bold red", "not compared": "yellow"}


def schedule_trouble(schedules: Sequence[Schedule]) -> list[Schedule]:
    """Those that an operator should look at."""
    return [each for each in schedules if each.result in {"differences", "not compared"}
            and each.next_run_at is not None]  # fmt: skip


def schedule_lines(schedules: Sequence[Schedule], now: datetime) -> list[Text]:
    """For the overview: a line for each that is in trouble, or else one for all together."""
    troubled = schedule_trouble(schedules)
    if troubled:
        return [line for each in troubled for line in _lines(each, now)]
    ran = [each for each in schedules if each.result is not None and each.ended_at is not None]
    if not ran:
        return []
    words = "; ".join(
        f"{each.level} {ago(each.ended_at, now)}" for each in ran if each.ended_at is not None
    )
    return [plain(f"Reconciled: {words}", "dim")]


def show_schedules(stream: Stream, schedules: Sequence[Schedule], now: datetime) -> None:
    """All of it, for `stream show`."""
    heading("Reconciliation")
    known = {each.level: each for each in schedules}
    for level, cron in (("files", stream.reconcile_files), ("events", stream.reconcile_events)):
        each = known.get(level)
        if each is None or each.cron != cron:
            show(f"{level}: {cron}" + ("" if cron == "off" else ", not planned yet"))
            continue
        for line in _lines(each, now):
            show(line)


def _lines(each: Schedule, now: datetime) -> list[Text]:
    text = plain(f"{each.level}: ")
    if each.result is None or each.ended_at is None:
        text += plain("not run yet")
    else:
        text += plain(each.result, _STYLES[each.result])
        text += plain(f" {ago(each.ended_at, now)}")
    counts = ", ".join(f"{count} {kind}" for kind, count in each.differences.items())
    if counts:
        text += plain(f" ({counts})")
    if each.verified_sequence is not None:
        unclean = f", {number(each.unclean or 0, 'file')} of them not clean" if each.unclean else ""
        text += plain(f", compared up to file {number(each.verified_sequence)}{unclean}", "dim")
    text += plain(f"; {_next(each, now)}", "dim")
    lines = [text]
    if each.differences:
        lines.append(plain(f"See them: auditstore reconcile --stream {each.stream_id} "
                           f"--level {each.level}", "dim"))  # fmt: skip
    if each.error_cause:
        lines.append(Text.assemble(plain(f"{each.error_code}: ", "bold"), plain(each.error_cause)))
        if each.error_hint:
            lines.append(Text.assemble(("Try: ", "bold"), plain(each.error_hint)))
    return lines


def _next(each: Schedule, now: datetime) -> str:
    if each.running_since is not None:
        return f"runs for {age((now - each.running_since).total_seconds())}"
    if each.next_run_at is None:
        return "off"
    wait = (each.next_run_at - now).total_seconds()
    return f"next in {age(wait)}" if wait > 0 else f"due for {age(-wait)}"


def schedules_as_json(schedules: Sequence[Schedule]) -> list[dict[str, Any]]:
    """For programs."""
    left_out = {"stream_id", "flow_id"}
    return [
        {name: value for name, value in asdict(each).items() if name not in left_out}
        for each in schedules
    ]
