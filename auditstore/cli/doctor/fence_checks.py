"""Checks of the fence: does what may be read move on, and if not, who holds it?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import Engine

from auditstore.cli.daemons import is_alive
from auditstore.cli.doctor.findings import INCOMPLETE, NO_FILES, Finding
from auditstore.cli.wording import age, number
from auditstore.sql import fence as sql
from auditstore.sql.fence import OpenWriter
from auditstore.sql.streams import last_position

_PAUSE_S: Final = 0.1
_LOOK_FOR_S: Final = 2.0
#: A transaction that stays open for longer than this is trouble; a shorter one may be work.
_TOO_LONG_S: Final = 10.0
#: The exporter reports its fence every three seconds.
_OLD_FENCE_S: Final = 15.0


def check_fence(
    engine: Engine,
    *,
    look_for: float = _LOOK_FOR_S,
    too_long: float = _TOO_LONG_S,
    pause: Callable[[float], object] = time.sleep,
) -> Finding:
    """Look twice at least, up to ``look_for`` seconds, whether all that was handed out at the
    first look can be read. Raises TailingUnsafe where no fence can be had.
    """
    from exporters.fence import Fence  # noqa: PLC0415  # the composition root

    with engine.connect() as plain:
        connection = plain.execution_options(isolation_level="AUTOCOMMIT")
        fence = Fence(connection)
        wanted = last_position(connection)
        ends_at = time.monotonic() + look_for
        fence.advance()
        while True:
            pause(_PAUSE_S)
            fence.advance()
            if fence.position >= wanted:
                return Finding(
                    "fence", "ok",
                    "it moves: all that was appended can be read, up to position "
                    f"{number(wanted)}",
                )  # fmt: skip
            if time.monotonic() > ends_at:
                break
        writers = sql.open_writers(connection)
    return _held(writers, too_long)


def _held(writers: Sequence[OpenWriter], too_long: float) -> Finding:
    if not writers:
        # It went away between the last look and the question who it was.
        return Finding("fence", "ok", "it moves, slowly: the transactions that held it are over")
    oldest = writers[0]
    # One whose age is hidden may be as old as any.
    long_open = oldest.age is None or oldest.age >= too_long
    lasting = "" if oldest.age is None else f", open for {age(oldest.age)}"
    others = f", and {len(writers) - 1} more" if len(writers) > 1 else ""
    return Finding(
        "fence", "fails" if long_open else "warning",
        f"what was appended last waits for {_who(oldest)}{lasting}{others}",
        f"{_how_to_end(oldest)} Let idle_in_transaction_session_timeout end such transactions.",
        (NO_FILES, INCOMPLETE),
    )  # fmt: skip


def _who(writer: OpenWriter) -> str:
    if writer.prepared:
        return f"the prepared transaction {writer.prepared}"
    known = [
        text
        for text in (
            writer.user_name and f"user {writer.user_name}",
            writer.application and f"application {writer.application}",
            writer.state,
        )
        if text
    ]
    return f"process {writer.pid}" + (f" ({', '.join(known)})" if known else "")


def _how_to_end(writer: OpenWriter) -> str:
    if writer.prepared:
        gid = writer.prepared.replace("'", "''")
        return f"End it: COMMIT PREPARED '{gid}' or ROLLBACK PREPARED '{gid}'."
    return f"Have its program commit, or end it: SELECT pg_terminate_backend({writer.pid})."


def check_daemons_fences(daemons: Sequence[Any], here: Finding) -> Finding | None:
    """Whether each exporter's own fence moves as ours does; nothing to say without one."""
    alive = [each for each in daemons if is_alive(each)]
    if not alive or here.result != "ok":
        return None
    stuck = [each for each in alive if (each.fence_age or 0.0) > _OLD_FENCE_S]
    silent = [each for each in alive if each.fence_position is None]
    if not stuck and not silent:
        oldest = max(each.fence_age or 0.0 for each in alive)
        return Finding("exporter's fence", "ok", f"at most {age(oldest)} old")
    worst = (stuck or silent)[0]
    what = f"was last renewed {age(worst.fence_age)} ago" if stuck else "was never seen"
    return Finding(
        "exporter's fence", "fails",
        f"the fence of the exporter on {worst.host}, process {worst.pid}, {what}, though "
        "nothing holds it back",
        "Its log says what it waits for; if it says nothing, restart it.",
        (NO_FILES, INCOMPLETE),
    )  # fmt: skip
