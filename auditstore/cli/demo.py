"""``auditstore demo``: the whole of it on this machine, told step by step."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import click
import orjson

from auditstore.cli import demo_view as view
from auditstore.cli.display import busy, show
from auditstore.errors import AuditStoreError

if TYPE_CHECKING:
    from auditstore.demo.exporter import Exporter
    from auditstore.demo.run import Delivered, Stage

_LEADS_OF_EACH_FLOW: Final = 150


@click.command()
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Do it in this empty folder, and leave database and files there.")  # fmt: skip
@click.pass_context
def demo(ctx: click.Context, /, *, keep: Path | None) -> None:
    """See it all work, with nothing to prepare.

    Starts a PostgreSQL and an S3 server of its own, lets a small flow engine handle some
    hundred leads while the exporter delivers their events, and compares both sides event by
    event. Takes half a minute, needs no network, and touches nothing that is configured.
    """
    from auditstore.demo.processes import isolate  # noqa: PLC0415  # only this command needs it

    began = time.monotonic()
    isolate()
    with _ends_in_order():
        result = _demo(keep)
    view.ending(result, seconds=time.monotonic() - began, keep=keep)
    ctx.exit(result)


def _demo(keep: Path | None) -> int:
    from auditstore.demo import run  # noqa: PLC0415  # the composition root
    from auditstore.demo.exporter import exporter  # noqa: PLC0415  # as above
    from auditstore.demo.sample import newest_delivery  # noqa: PLC0415  # as above

    view.opening(keep)
    with ExitStack() as stack:
        with busy("Starting the servers"):
            stage = stack.enter_context(run.playing(keep))
        view.servers(stage)
        streams = run.add_streams(stage)
        view.streams(streams)
        with exporter(stage.folder / "exporter.log", stage.environment) as daemon:
            view.exporter_started(daemon.pid)
            delivered = _handle_and_deliver(stage, daemon)
        view.delivered(delivered)
        view.objects([(each, run.objects_of(stage, each)) for each in streams])
        view.event(newest_delivery(stage, streams[0]))
        report = _reconcile(stage)
        result = _tell(report, delivered)
        with busy("Stopping the servers"):
            stack.close()
    return result


def _handle_and_deliver(stage: Stage, daemon: Exporter) -> list[Delivered]:
    """Let the flows work, then wait until all of it has arrived."""
    from auditstore.demo import run, traffic  # noqa: PLC0415  # the composition root

    def watch_leads(tally: traffic.Tally) -> None:
        daemon.check()
        say(f"{tally.leads} leads handled, {tally.events} events appended")

    def watch_delivery(waiting: int) -> None:
        daemon.check()
        say(f"{waiting} events wait to be delivered")

    with busy("Leads come in") as say:
        tally = traffic.handle_leads(
            stage.engine, run.flows(), _LEADS_OF_EACH_FLOW, watch=watch_leads
        )
    view.leads(tally)
    with busy("The last events are delivered") as say:
        return run.wait_until_delivered(stage, watch=watch_delivery)


def _reconcile(stage: Stage) -> dict[str, Any]:
    """The real command, as a process of its own: its exit code is ours."""
    from auditstore.demo.processes import auditstore_command  # noqa: PLC0415  # as above

    done = subprocess.run(  # noqa: S603  # our own command
        auditstore_command("reconcile", "--level", "events", "--format", "json", "--no-keep"),
        env=os.environ | stage.environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip
    try:
        report: dict[str, Any] = orjson.loads(done.stdout)
    except orjson.JSONDecodeError as error:
        raise AuditStoreError(
            f"auditstore reconcile ended with {done.returncode} and no report",
            hint="What it said stands above.",
        ) from error
    return report


def _tell(report: dict[str, Any], delivered: list[Delivered]) -> int:
    view.reconciliation(report)
    result = 0 if report["exit_code"] == 0 else 1
    counted = {each.stream.stream_id: each.events for each in delivered}
    for stream in report["streams"]:
        if stream["events_expected"] != counted[stream["stream_id"]]:
            # A reconciliation of nothing at all would be in order, too.
            show(f"Stream {stream['stream_id']}: {counted[stream['stream_id']]} events were "
                 f"delivered, {stream['events_expected']} compared.", style="red")  # fmt: skip
            result = 1
    return result


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """SIGTERM and a closed terminal stop the servers as Ctrl-C does."""

    def leave(number: int, _: FrameType | None) -> None:
        # Once: the servers are stopping, and whoever asks again must not hinder that.
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {
        number: signal.signal(number, leave)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
