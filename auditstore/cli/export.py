"""``auditstore export``: the exporter as a daemon, or once."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from auditstore import database, streams
from auditstore.cli.context import Session
from auditstore.cli.display import Column, Row, busy, listing, plain, show, write_json
from auditstore.cli.logs import LOG_FORMATS, LogFormat
from auditstore.cli.options import json_option
from auditstore.cli.stores import store_opener
from auditstore.cli.wording import number
from auditstore.errors import AuditStoreError, ConfigurationError
from auditstore.settings import ListenAddress

_FAILED = 1


def _listen_address(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    return None if value is None else ListenAddress.parse(value)


@click.group()
def export() -> None:
    """Deliver events: as a daemon, or once."""


@export.command()
@click.option("--workers", type=click.IntRange(1, 64), default=6, show_default=True, metavar="N",
              help="How many streams to work on at a time.")  # fmt: skip
@click.option(
    "--log-format", type=click.Choice(LOG_FORMATS),
    help="For people or for programs.  [default: AUDITSTORE_LOG_FORMAT, else console]",
)  # fmt: skip
@click.option(
    "--metrics-listen", metavar="HOST:PORT", callback=_listen_address,
    help="Serve /metrics, /healthz and /readyz there, for example on 127.0.0.1:9464."
    "  [default: AUDITSTORE_METRICS_LISTEN, else nowhere]",
)  # fmt: skip
@click.pass_obj
def run(
    session: Session,
    *,
    workers: int,
    log_format: LogFormat | None,
    metrics_listen: ListenAddress | None,
) -> None:
    """Deliver events as they come, until SIGTERM or Ctrl-C.

    Several may run at once, on several machines: they share the streams. Told to stop, it
    finishes the uploads in hand and leaves within ten seconds. The log goes to stderr.
    """
    from auditstore.cli.export_run import run_daemon  # noqa: PLC0415  # APScheduler is slow

    run_daemon(session, workers=workers, log_format=log_format, listen=metrics_listen)


@export.command()
@click.option("--stream", "stream_ids", type=click.IntRange(min=1), multiple=True, metavar="STREAM",
              help="Only this stream. May be repeated.")  # fmt: skip
@json_option
@click.pass_context
def once(ctx: click.Context, /, *, stream_ids: tuple[int, ...], as_json: bool) -> None:
    """Deliver what is there now, and leave.

    It waits for no stream's delay. Leaves with 0 if every stream could deliver, else with 1;
    what could not be delivered waits for the next time. A daemon may run meanwhile.
    """
    from exporters.once import export_once  # noqa: PLC0415  # the composition root
    from exporters.worker import LONGEST_IDLE  # noqa: PLC0415  # as above

    session: Session = ctx.obj
    _check(session, stream_ids)
    _quiet()
    engine = database.create_engine(
        session.database_url,
        application_name="auditstore export once",
        longest_idle=LONGEST_IDLE,
        hide_parameters=True,
    )
    try:
        with busy("Delivering"):
            result = export_once(engine, store_opener(session.vault), stream_ids=stream_ids or None)
    finally:
        engine.dispose()
    if as_json:
        write_json({
            "streams": [
                {
                    "stream_id": stream.stream_id, "flow_id": stream.flow_id,
                    "url": stream.url, "files": outcome.delivered,
                    "events": outcome.events, "state": _state(outcome),
                    "error": _error(outcome.error),
                }
                for stream, outcome in result.outcomes
            ],
            "held_back": result.behind,
        })  # fmt: skip
    else:
        _show(result)
    if result.failed:
        ctx.exit(_FAILED)


def _check(session: Session, stream_ids: tuple[int, ...]) -> None:
    with session.reading() as connection:
        for stream_id in stream_ids:
            if not streams.get(connection, stream_id).enabled:
                raise ConfigurationError(
                    f"stream {stream_id} is disabled",
                    hint=f"Start it first: `auditstore stream enable {stream_id}`.",
                )


def _quiet() -> None:
    """The table says it all, once."""
    import structlog  # noqa: PLC0415  # only where something logs

    structlog.configure(processors=[_drop])


def _drop(*_: Any) -> Any:
    from structlog import DropEvent  # noqa: PLC0415  # as above

    raise DropEvent


def _show(result: Any) -> None:
    if not result.outcomes:
        show("No stream is enabled. Add one with `auditstore stream add --flow ID --to URL`.")
        return
    columns = (
        Column("STREAM", right=True), Column("FLOW", shrinking=True), Column("RESULT"),
        Column("FILES", right=True), Column("EVENTS", right=True),
    )  # fmt: skip
    listing(
        columns,
        [
            Row(
                (
                    plain(stream.stream_id), plain(stream.flow_id), _result(outcome),
                    plain(number(outcome.delivered)), plain(number(outcome.events)),
                ),
                (plain(stream.url, "dim"), *_trouble(outcome.error)),
            )
            for stream, outcome in result.outcomes
        ],
    )  # fmt: skip
    if result.behind:
        show("Transactions that had appended were still open; what they appended waits for the "
             "next time. `auditstore status` shows them.", style="yellow")  # fmt: skip


def _state(outcome: Any) -> str:
    if outcome.error is None:
        return "delivered"
    return "halted" if outcome.halted else "failed"


def _result(outcome: Any) -> Text:
    state = _state(outcome)
    if state == "delivered" and not outcome.delivered:
        return plain("nothing new")
    return plain(state, "green" if state == "delivered" else "red")


def _trouble(error: AuditStoreError | None) -> list[Text]:
    if error is None:
        return []
    return [plain(error.message, "red"), *([plain(error.hint)] if error.hint else [])]


def _error(error: AuditStoreError | None) -> dict[str, str] | None:
    if error is None:
        return None
    return {"code": error.code, "message": error.message, "hint": error.hint}
