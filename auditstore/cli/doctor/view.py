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
#: Of many streams, so many are shown in detail, and so many policies.
_MOST_STREAMS: Final = 20
_MOST_POLICIES: Final = 3
#: What is tried at a store with a credential that it knows.
_TRIED: Final = frozenset({"write", "read back", "list"})


def show_diagnosis(diagnosis: Diagnosis, *, one_stream: bool) -> None:
    """Everything of the database and of one stream; of several, those that are not well."""
    whole = one_stream or len(diagnosis.examined) == 1
    heading("Database and exporters")
    _show_findings(diagnosis.general, {})
    ill = [each for each in diagnosis.examined if whole or _is_noteworthy(each)]
    ill.sort(key=lambda each: not any(finding.result == "fails" for finding in each.findings))
    said: dict[str, int] = {}
    for each in ill[:_MOST_STREAMS]:
        _show_stream(each, said, whole=whole)
    _show_the_rest(diagnosis, ill)
    _show_rights(diagnosis, whole=whole)
    _show_verdict(diagnosis)


def _show_the_rest(diagnosis: Diagnosis, ill: Sequence[Examined]) -> None:
    more, well = len(ill) - _MOST_STREAMS, len(diagnosis.examined) - len(ill)
    if more > 0:
        heading(f"{number(more, 'more stream')} not well")
        ids = ", ".join(str(each.stream.stream_id) for each in ill[_MOST_STREAMS:])
        show(ids, indent="  ")
    if well:
        heading(f"{number(well, 'stream')} without trouble")
    if more > 0 or well:
        show("See one in full: auditstore doctor --stream ID", style="dim")


def _is_noteworthy(each: Examined) -> bool:
    return any(finding.is_bad or finding.result == "unknown" for finding in each.findings)


def _show_stream(each: Examined, said: dict[str, int], *, whole: bool) -> None:
    heading(f"Stream {each.stream.stream_id}, flow {harmless(each.stream.flow_id)}")
    show(stream_view.place(each.stream), indent="  ")
    _show_findings(
        [finding for finding in each.findings
         if whole or finding.is_bad or finding.result == "unknown"],
        said, each.stream.stream_id,
    )  # fmt: skip


def _show_findings(findings: Sequence[Finding], said: dict[str, int], stream_id: int = 0) -> None:
    """``said`` has the hints that were given, by the stream that they were given for."""
    narrow = console().is_terminal and console().width < _NARROW
    indent = " " * (2 + _MARK_WIDTH + (0 if narrow else _CHECK_WIDTH))
    for each in findings:
        word, style = _MARKS[each.result]
        lead = Text.assemble(
            "  ", (f"{word:<{_MARK_WIDTH}}", style), f"{each.check:<{_CHECK_WIDTH}}"
        )
        message = plain(each.message, "dim" if each.result in {"ok", "note"} else "")
        if narrow:
            show(lead)
            show(message, indent=indent)
        else:
            _hanging(lead, message, indent)
        if each.hint and each.result not in {"ok", "note"}:
            before = said.setdefault(each.hint, stream_id)
            hint = each.hint if before == stream_id else f"as for stream {before}"
            show(Text.assemble(("Try: ", "bold"), plain(hint)), indent=indent)


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


def _show_rights(diagnosis: Diagnosis, *, whole: bool) -> None:
    """Of the stream that was asked for, the only one, or those that lack a right."""
    poor = [each for each in diagnosis.examined if whole or _lacks_a_right(each)]
    for each in poor[:_MOST_POLICIES]:
        heading(f"The rights that stream {each.stream.stream_id} needs, and no more")
        _show_privilege(each.stream, each.rights)
    if len(poor) > _MOST_POLICIES:
        ids = ", ".join(str(each.stream.stream_id) for each in poor[_MOST_POLICIES:])
        heading("Rights of other streams")
        show(f"See auditstore doctor --stream ID of {ids}")


def _lacks_a_right(each: Examined) -> bool:
    return any(
        finding.is_bad and DENIED in finding.explains and finding.check in _TRIED
        for finding in each.findings
    )


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
        if each.others:
            more = number(each.others, "more cause stands", "more causes stand")
            show(f"{more} above.", indent="  ", style="dim")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _nothing(diagnosis: Diagnosis) -> str:
    if not diagnosis.complete:
        return "Not known."
    return "Nothing was found that would cause it."
