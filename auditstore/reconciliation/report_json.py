"""The report as one JSON object with every finding, written while the comparison runs."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from typing import Any, Final, TextIO

import orjson

from auditstore.reconciliation.document import VERSION, Document, canonical, finding_values
from auditstore.reconciliation.findings import Finding
from auditstore.reconciliation.summary import Summary

_PIECE: Final = 1024 * 1024
#: What is known before the first finding.
_HEAD: Final = ("version", "level", "since", "until")


class JsonReport:
    """Holds no finding: they are written into the array ``findings`` as they come.

    The report's hash is that of its canonical JSON, in which every finding stands too; a copy of
    them waits for it in a file that has no name.
    """

    def __init__(self, out: TextIO, document: Document, *, values: bool = False) -> None:
        self._out = out
        self._document = document
        self._values = values
        self._written = 0
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115  # closed in end(), or with this
        scope = document.about.scope
        head = {"version": VERSION} | {name: scope[name] for name in _HEAD if name in scope}
        out.write(_dumps(head)[:-1] + ',"findings":[')

    def finding(self, finding: Finding, comparison_round: int) -> None:
        """One element, on a line of its own."""
        values = finding_values(
            finding, comparison_round, self._document.comparison, values=self._values
        )
        self._out.write((",\n" if self._written else "\n") + _dumps(values))
        self._spool.write((b"," if self._written else b"") + canonical(values))
        self._written += 1

    def stream(self, summary: Summary, comparison_round: int) -> None:
        """Nothing: the document has it."""

    def end(self, result: int) -> None:  # noqa: ARG002  # the document has it
        """Close the array, and the object with what is known only now."""
        frame = {**self._document.frame, "findings_left_out": 0}
        with self._spool:
            sha256 = self._hash(frame)
        tail = {name: value for name, value in frame.items() if name not in _HEAD}
        self._out.write("\n]," + _dumps({**tail, "sha256": sha256})[1:] + "\n")

    def _hash(self, frame: Mapping[str, Any]) -> str:
        """Of the canonical JSON: names before ``findings``, the findings, names behind it."""
        before = {name: value for name, value in frame.items() if name < "findings"}
        behind = {name: value for name, value in frame.items() if name > "findings"}
        digest = hashlib.sha256(canonical(before)[:-1] + b',"findings":[')
        self._spool.seek(0)
        while piece := self._spool.read(_PIECE):
            digest.update(piece)
        digest.update(b"]," + canonical(behind)[1:])
        return digest.hexdigest()


def _dumps(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_UTC_Z).decode()
