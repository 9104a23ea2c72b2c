"""The command line. Together with the console it alone puts store and exporters together."""

from __future__ import annotations

import sys

try:
    import click  # noqa: F401  # everything below needs it, the core does not
except ModuleNotFoundError:
    sys.stderr.write(
        "Error: the command line is not installed\nTry:   pip install 'auditstore[exporter]'\n"
    )
    raise SystemExit(2) from None

from auditstore.cli.root import main

__all__ = ["main"]
