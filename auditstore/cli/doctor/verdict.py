"""What the findings mean for whoever came with one of the three symptoms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from auditstore.cli.doctor.findings import Finding, Symptom
from auditstore.cli.doctor.least_privilege import LeastPrivilege
from auditstore.streams import Stream

_RANK: Final = {"fails": 0, "warning": 1, "unknown": 2, "note": 3}
#: What to do about a symptom that nothing found explains.
_OTHERWISE: Final = {
    Symptom.NO_FILES: "Send a test lead the whole way: auditstore stream test {stream} --lead",
    Symptom.INCOMPLETE: "Compare event by event: auditstore reconcile{option} --level events",
    Symptom.DENIED: "If the exporter is denied all the same, it has another credential than this "
    "program: run auditstore doctor as its user, on its host.",
}


@dataclass(frozen=True, slots=True)
class Examined:
    """One stream, what was found of it, and the rights that it needs."""

    stream: Stream
    findings: Sequence[Finding]
    rights: LeastPrivilege


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that was looked at; ``complete`` is false when the database was not there to
    be asked, or not all of it.
    """

    general: Sequence[Finding]
    examined: Sequence[Examined] = field(default=())
    complete: bool = True

    @property
    def trouble(self) -> bool:
        """Whether anything fails."""
        return any(finding.result == "fails" for _, finding in self.everything())

    def everything(self) -> Iterator[tuple[Stream | None, Finding]]:
        """Every finding, with its stream."""
        for finding in self.general:
            yield None, finding
        for each in self.examined:
            for finding in each.findings:
                yield each.stream, finding


@dataclass(frozen=True, slots=True)
class Advice:
    """A symptom's likeliest cause, ``None`` where nothing was found, and the next step.

    ``stream_ids`` are those that have this very cause; ``others`` counts further causes.
    """

    symptom: Symptom
    cause: str | None
    next_step: str
    stream_ids: tuple[int, ...] = ()
    others: int = 0


def advice(diagnosis: Diagnosis) -> list[Advice]:
    """For each symptom the first cause on the way from the database to the store."""
    return [_advice(symptom, diagnosis) for symptom in Symptom]


def _advice(symptom: Symptom, diagnosis: Diagnosis) -> Advice:
    found = [
        (stream, finding)
        for stream, finding in diagnosis.everything()
        if finding.result in _RANK and _explains(finding, symptom)
    ]
    # Sorting is stable: the earlier on the way, the likelier the cause of what comes after it.
    found.sort(key=lambda pair: _RANK[pair[1].result])
    if not found:
        return Advice(symptom, None, _otherwise(symptom, diagnosis))
    _, first = found[0]
    kinds = dict.fromkeys((finding.check, finding.hint) for _, finding in found)
    same = {
        stream.stream_id
        for stream, finding in found
        if stream is not None and (finding.check, finding.hint) == (first.check, first.hint)
    }
    hint = first.hint or _otherwise(symptom, diagnosis)
    return Advice(symptom, first.message, hint, tuple(sorted(same)), len(kinds) - 1)


def _explains(finding: Finding, symptom: Symptom) -> bool:
    """Whatever keeps files away also makes the newest events look as if they were missing."""
    stopped = finding.result == "fails" and Symptom.NO_FILES in finding.explains
    return symptom in finding.explains or (symptom is Symptom.INCOMPLETE and stopped)


def _otherwise(symptom: Symptom, diagnosis: Diagnosis) -> str:
    if not diagnosis.complete:
        return "Mend what keeps this program from looking, then run it again."
    one = len(diagnosis.examined) == 1
    number = str(diagnosis.examined[0].stream.stream_id) if one else "STREAM"
    return _OTHERWISE[symptom].format(stream=number, option=f" --stream {number}" if one else "")
