"""How `auditstore status` looks: legible with one stream and with hundreds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from rich.text import Text

from auditstore.cli import stream_view
from auditstore.cli.daemons import is_alive
from auditstore.cli.display import Column, Row, heading, listing, plain, show
from auditstore.cli.overview import Overview, StreamProgress, is_long_open
from auditstore.cli.schedule_view import schedule_lines, schedule_trouble
from auditstore.cli.wording import age, ago, number
from auditstore.sql.fence import OpenWriter
from auditstore.sql.schedules import Schedule

#: With more streams than this, those that do well have one line each, and not all are listed.
_FEW: Final = 20
#: A fence older than this, in seconds, is behind by more than its report's own age.
_OLD_FENCE_S: Final = 10.0


def show_overview(seen: Overview, *, show_all: bool) -> None:
    """Exporters, what holds them back, then the streams, the worst first."""
    _show_daemons(seen)
    _show_writers(seen)
    heading(_summary(seen))
    if not seen.streams:
        show("None. Add one with `auditstore stream add --flow ID --to URL`.")
        return
    troubled = [each for each in seen.streams if _needs_attention(each, seen)]
    well = [each for each in seen.streams if not _needs_attention(each, seen)]
    few = len(seen.streams) <= _FEW
    listed = well if few or show_all else well[:_FEW]
    explained: dict[tuple[str | None, str | None], int] = {}
    rows = [_row(each, seen, explained, detailed=n < _FEW) for n, each in enumerate(troubled)]
    rows += [_row(each, seen, explained, detailed=few) for each in listed]
    listing(_COLUMNS, rows)
    if len(listed) < len(well):
        show(f"and {number(len(well) - len(listed), 'more stream')} without trouble: "
             "auditstore status --all", style="dim")  # fmt: skip


_COLUMNS: Final = (
    Column("STREAM", right=True), Column("FLOW", shrinking=True), Column("STATE"),
    Column("WAITING", right=True), Column("LAG", right=True), Column("LAST FILE"),
    Column("FENCE", right=True),
)  # fmt: skip


def _summary(seen: Overview) -> str:
    if len(seen.streams) <= 1:
        return "Streams"
    counted = Counter(each.standing(seen.now) for each in seen.streams)
    return f"{len(seen.streams)} streams: " + ", ".join(
        f"{count} {state}" for state, count in counted.items()
    )


def _needs_attention(each: StreamProgress, seen: Overview) -> bool:
    return each.standing(seen.now) not in {"streaming", "disabled"} or bool(
        each.stream.enabled and schedule_trouble(_schedules(each, seen))
    )


def _schedules(each: StreamProgress, seen: Overview) -> Sequence[Schedule]:
    return seen.schedules.get(each.stream.stream_id, ())


def _show_daemons(seen: Overview) -> None:
    alive = [daemon for daemon in seen.daemons if is_alive(daemon)]
    if not alive:
        show(Text.assemble(
            ("No exporter is running", "red"), ": nothing is delivered. Start one with "
            "`auditstore export run`.",
        ))  # fmt: skip
        return
    heading_text = f"{number(len(alive), 'exporter')} running"
    show(heading_text, style="green")
    for daemon in alive:
        show(
            f"{daemon.host}, process {daemon.pid}, version {daemon.version}, up "
            f"{age((seen.now - daemon.started_at).total_seconds())}, seen "
            f"{age(daemon.silent_for)} ago" + _fence(daemon, seen),
            indent="  ", style="dim",
        )  # fmt: skip


def _fence(daemon: Any, seen: Overview) -> str:
    if daemon.fence_position is None:
        return ""
    behind = seen.position - daemon.fence_position
    return f", safe to read up to position {number(daemon.fence_position)}" + (
        f" ({number(behind, 'position')} behind, for {age(daemon.fence_age)})" if behind > 0 else ""
    )


def _show_writers(seen: Overview) -> None:
    long_open = [each for each in seen.writers if is_long_open(each)]
    if not long_open:
        return
    heading("Held back by")
    show("These transactions have appended and are not over. What was appended after they "
         "began cannot be delivered before.")  # fmt: skip
    show_open_writers(long_open)


def show_open_writers(writers: Sequence[OpenWriter]) -> None:
    """Whose transactions they are, for how long, and what each did last."""
    columns = (
        Column("PID", right=True), Column("USER", shrinking=True), Column("APPLICATION"),
        Column("OPEN FOR", right=True), Column("STATE"),
    )  # fmt: skip
    listing(
        columns,
        [
            Row(
                (
                    plain(each.pid or "-"), plain(each.user_name or "-"),
                    plain(each.application or "-"),
                    plain("-" if each.age is None else age(each.age)),
                    plain("prepared" if each.prepared else each.state or "-"),
                ),
                (plain(f"prepared transaction {each.prepared}" if each.prepared
                       else each.query or "(its query is hidden from this user)", "dim"),),
            )
            for each in writers
        ],
        indent="  ",
    )  # fmt: skip


def _row(
    each: StreamProgress,
    seen: Overview,
    explained: dict[tuple[str | None, str | None], int],
    *,
    detailed: bool,
) -> Row:
    stream, now = each.stream, seen.now
    lag, last = each.lag(now), each.last_file
    late = each.is_late(now)
    old = (each.fence_age or 0.0) > _OLD_FENCE_S
    state = plain("late", "yellow") if each.standing(now) == "late" else (
        stream_view.state_text(stream)
    )  # fmt: skip
    return Row(
        (
            plain(stream.stream_id), plain(stream.flow_id), state,
            plain(number(each.waiting) if each.waiting else "-"),
            plain(age(lag) if each.waiting else "-", "yellow" if late else ""),
            plain("-" if last is None or last.delivered_at is None
                  else f"#{last.sealed.sequence}, {ago(last.delivered_at, now)}"),
            plain("-" if each.fence_age is None else age(each.fence_age), "yellow" if old else ""),
        ),
        _details(each, seen, explained) if detailed else (),
    )  # fmt: skip


def _details(
    each: StreamProgress, seen: Overview, explained: dict[tuple[str | None, str | None], int]
) -> list[Text]:
    """Place, trouble, and what it waits for; the same trouble is explained once."""
    stream = each.stream
    lines = [stream_view.place(stream)]
    trouble = stream_view.trouble(stream, seen.now)
    kind = (stream.status.code, stream.status.hint)
    if trouble and explained.setdefault(kind, stream.stream_id) != stream.stream_id:
        again = stream_view.next_try(stream, seen.now)
        as_before = f"{stream.status.code}, as stream {explained[kind]}"
        trouble = [plain(as_before + (f"; {again}" if again else ""))]
    lines += trouble
    if stream.enabled:
        lines += schedule_lines(_schedules(each, seen), seen.now)
    holding = seen.holding(each)
    if holding:
        oldest = holding[0]
        who = f"prepared transaction {oldest.prepared}" if oldest.prepared else (
            f"process {oldest.pid}"
        )  # fmt: skip
        more = f" and {len(holding) - 1} more" if len(holding) > 1 else ""
        lasting = "" if oldest.age is None else f", open for {age(oldest.age)}"
        lines.append(plain(f"Held back by {who}{lasting}{more}", "yellow"))
    elif stream.enabled and each.daemon is None and any(map(is_alive, seen.daemons)):
        lines.append(plain("No exporter has taken it yet", "yellow"))
    return lines
