"""Does the bucket hold what the outbox holds? A comparison that answers, and can prove it.

:func:`compare_stream` compares outbox, ledger and store for one stream. It reports each finding
as it comes and keeps none, so its memory does not grow with the range. Nothing is ever
overwritten or deleted; missing files are put back only through the function that the caller
passes in.
"""

from auditstore.reconciliation.comparison import compare_stream
from auditstore.reconciliation.findings import Finding, Kind
from auditstore.reconciliation.incremental import compare_increment
from auditstore.reconciliation.job import Restore
from auditstore.reconciliation.scope import Level, Progress, Scope
from auditstore.reconciliation.summary import Summary
from auditstore.reconciliation.workers import Readers, Workers

__all__ = [
    "Finding",
    "Kind",
    "Level",
    "Progress",
    "Readers",
    "Restore",
    "Scope",
    "Summary",
    "Workers",
    "compare_increment",
    "compare_stream",
]
