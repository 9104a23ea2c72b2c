"""``python -m auditstore``: the command line."""

from auditstore.cli import main

main(prog_name="auditstore")
