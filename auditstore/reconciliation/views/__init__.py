"""Three views of the same events: the outbox, what lies in a bucket, and LeadConduit's own.

:func:`~auditstore.reconciliation.views.comparison.compare_views` compares any two of them, event
by event, and :func:`~auditstore.reconciliation.views.importing.import_events` takes the events of
a view into the outbox. A view only reads. It tells of each event with its place, and of each thing
that is no event as a finding with its place; what stops it altogether is an error.
"""

from auditstore.reconciliation.views.comparison import Comparison, Pair, compare_views
from auditstore.reconciliation.views.importing import ImportResult, import_events
from auditstore.reconciliation.views.records import Record, Trouble, View

__all__ = [
    "Comparison",
    "ImportResult",
    "Pair",
    "Record",
    "Trouble",
    "View",
    "compare_views",
    "import_events",
]
