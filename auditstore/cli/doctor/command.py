"""``auditstore doctor``: what is wrong, and what to do next."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import click

from auditstore.cli.context import Session
from auditstore.cli.display import busy, write_json
from auditstore.cli.doctor.examination import examine
from auditstore.cli.doctor.findings import Finding
from auditstore.cli.doctor.verdict import Diagnosis, advice
from auditstore.cli.doctor.view import show_diagnosis
from auditstore.cli.failures import COULD_NOT
from auditstore.cli.options import json_option

_TROUBLE: Final = 1


@click.command()
@click.option("--stream", "stream_id", metavar="ID", type=click.IntRange(min=1),
              help="Look at one stream only, and print the rights that it needs.")  # fmt: skip
@json_option
@click.pass_context
def doctor(ctx: click.Context, *, stream_id: int | None, as_json: bool) -> None:
    """Look at the whole way from the database to the stores, and say what to do.

    Each enabled stream's store is tried with a small verification object, as by
    `auditstore stream test`. Leaves with 0 when all is well, 1 when something fails, 2 when
    it could not look.
    """
    session: Session = ctx.obj
    with busy("Looking") as say:
        diagnosis = examine(session, stream_id, say)
    if as_json:
        write_json(_as_json(diagnosis))
    else:
        show_diagnosis(diagnosis, one_stream=stream_id is not None)
    ctx.exit(_exit_code(diagnosis))


def _exit_code(diagnosis: Diagnosis) -> int:
    if diagnosis.trouble and diagnosis.general[0].result == "ok":
        return _TROUBLE
    return 0 if diagnosis.complete else COULD_NOT


def _as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    verdicts = {0: "well", _TROUBLE: "trouble", COULD_NOT: "could-not-look"}
    return {
        "verdict": verdicts[_exit_code(diagnosis)],
        "findings": [_finding(each) for each in diagnosis.general],
        "streams": [
            {
                "stream_id": each.stream.stream_id,
                "flow_id": each.stream.flow_id,
                "url": each.stream.destination.url,
                "findings": [_finding(finding) for finding in each.findings],
                "least_privilege": asdict(each.rights),
            }
            for each in diagnosis.examined
        ],
        "symptoms": [asdict(each) for each in advice(diagnosis)],
    }


def _finding(each: Finding) -> dict[str, Any]:
    return {
        "check": each.check, "result": each.result, "message": each.message, "hint": each.hint,
    }  # fmt: skip
