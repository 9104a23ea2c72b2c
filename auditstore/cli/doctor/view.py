"""How the doctor's findings look: a line each, and the verdict at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson
from rich.text import Text

from auditstore.cli import stream_view
from auditstore.cli.display import console, harmless, heading, plain, show
from auditstore.cli.doctor.findings import DENIED, Finding
from auditstore.cli.doctor.least_privilege import LeastPrivilege
from auditstore.cli.doctor.verdict import Diagnosis, Examined, advice
from auditstore.cli.wording import number
from auditstore.streams import Stream

_MARKS: Final = {
    "ok": ("ok", "green"), "note": ("note", "dim"), "unknown": ("?", "yellow"),
    "warning": ("warning", "yellow"), "fails": ("FAILS", "bold red"),
}  # fmt: skip
_MARK_WIDTH: Final = 9
_CHECK_WIDTH: Final = 18
_NARROW: Final = 72


def show_diagnosis(diagnosis: Diagnosis, *, one_stream: bool) -> None:
    """Everything of the database and of one stream; of several, those that are not well."""
    heading("Database and exporters")
    _show_findings(diagnosis.general)
    for each in diagnosis.examined:
        if one_stream or len(diagnosis.examined) == 1 or _is_noteworthy(each):
            _show_stream(each, whole=one_stream or len(diagnosis.examined) == 1)
    well = sum(not _is_noteworthy(each) for each in diagnosis.examined)
    if well and len(diagnosis.examined) > 1:
        heading(f"{number(well, 'stream')} without trouble")
        show("See one in full: auditstore doctor --stream ID", style="dim")
    _show_rights(diagnosis, one_stream=one_stream)
    _show_verdict(diagnosis)


def _is_noteworthy(each: Examined) -> bool:
    return any(finding.is_bad or finding.result == "unknown" for finding in each.findings)


def _show_stream(each: Examined, *, whole: bool) -> None:
    heading(f"Stream {each.stream.stream_id}, flow {harmless(each.stream.flow_id)}")
    show(stream_view.place(each.stream), indent="  ")
    _show_findings(
        [finding for finding in each.findings
         if whole or finding.is_bad or finding.result == "unknown"]
    )  # fmt: skip


def _show_findings(findings: Sequence[Finding]) -> None:
    narrow = console().is_terminal and console().width < _NARROW
    indent = " " * (2 + _MARK_WIDTH + (0 if narrow else _CHECK_WIDTH))
    for each in findings:
        word, style = _MARKS[each.result]
        lead = Text.assemble(
            "  ", (f"{word:<{_MARK_WIDTH}}", style), f"{each.check:<{_CHECK_WIDTH}}"
        )
        said = plain(each.message, "dim" if each.result in {"ok", "note"} else "")
        if narrow:
            show(lead)
            show(said, indent=indent)
        else:
            _hanging(lead, said, indent)
        if each.hint and each.result not in {"ok", "note"}:
            show(Text.assemble(("Try: ", "bold"), plain(each.hint)), indent=indent)


def _hanging(lead: Text, said: Text, indent: str) -> None:
    """The message beside its name, its further lines below its first."""
    out = console()
    if not out.is_terminal:
        out.print(lead + said)
        return
    lines = said.wrap(out, max(out.width - len(indent), 20), overflow="fold")
    for place, line in enumerate(lines):
        line.rstrip()
        out.print((lead if place == 0 else Text(indent)) + line)


def _show_rights(diagnosis: Diagnosis, *, one_stream: bool) -> None:
    """Of the stream that was asked for, the only one, and those that are denied something."""
    for each in diagnosis.examined:
        denied = any(finding.is_bad and DENIED in finding.explains for finding in each.findings)
        if one_stream or len(diagnosis.examined) == 1 or denied:
            heading(f"The rights that stream {each.stream.stream_id} needs, and no more")
            _show_privilege(each.stream, each.rights)


def _show_privilege(stream: Stream, rights: LeastPrivilege) -> None:
    named = stream.credential_name or "the exporter's own identity"
    if rights.kind != "folder":
        show(f"{rights.title} for {named}:", style="dim")
    if rights.document is not None:
        # As it is, to be copied: never wrapped.
        console().print(Text(orjson.dumps(rights.document, option=orjson.OPT_INDENT_2).decode()))
    for command in rights.commands:
        console().print(Text(harmless(command)))
    for note in rights.notes:
        show(note, style="dim")


def _show_verdict(diagnosis: Diagnosis) -> None:
    heading("Verdict")
    if not diagnosis.complete:
        show("Not everything could be looked at.", style="bold red")
    elif diagnosis.trouble:
        failing = sum(finding.result == "fails" for _, finding in diagnosis.everything())
        show(f"{number(failing, 'check')} failed.", style="bold red")
    else:
        show("All is well.", style="green")
    for each in advice(diagnosis):
        ids = ", ".join(map(str, each.stream_ids))
        where = f"stream{'s' if len(each.stream_ids) > 1 else ''} {ids}: " if ids else ""
        show(Text.assemble((f"{str(each.symptom).capitalize()}? ", "bold"), plain(
            _sentence(f"{where}{each.cause}") if each.cause else _nothing(diagnosis)
        )))  # fmt: skip
        show(Text.assemble(("Next: ", "bold"), plain(each.next_step)), indent="  ")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _nothing(diagnosis: Diagnosis) -> str:
    if not diagnosis.complete:
        return "Not known."
    return "Nothing was found that would cause it."
