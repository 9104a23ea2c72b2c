"""``auditstore doctor``: the whole way from the database to the store, looked at step by step.

The checks return findings and show nothing; what they mean for the three symptoms, and how
they look, lies apart.
"""

from auditstore.cli.doctor.command import doctor

__all__ = ["doctor"]
