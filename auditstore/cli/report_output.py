"""Where a report is written: standard output, or a file that appears once it is complete."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

from rich.text import Text

from auditstore.cli.display import HarmlessText, console, harmless
from auditstore.errors import ConfigurationError


class PaintedText(HarmlessText):
    """A terminal in colours, unless NO_COLOR asks for none."""

    def paint(self, line: str, style: str) -> None:
        """Write a line, made harmless, in a style."""
        self.flush()
        console().print(Text(harmless(line), style=style))


@contextmanager
def written_to(output: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that takes its name once the report is complete."""
    if output is None:
        # A bucket's names and an event's fields may hold what a terminal would obey.
        yield cast("TextIO", PaintedText(sys.stdout)) if sys.stdout.isatty() else sys.stdout
        return
    unfinished = output.with_name(f"{output.name}.partial")
    # A device or a pipe is written as it is: nothing can take its place.
    is_plain = output.is_file() or not output.exists()
    try:
        with (unfinished if is_plain else output).open("w", encoding="utf-8", newline="") as out:
            yield out
        if is_plain:
            unfinished.replace(output)
    except OSError as error:
        raise ConfigurationError(
            f"the report cannot be written to {output}: {error.strerror or error}",
            hint="Name another file with --output.",
        ) from error
    finally:
        if is_plain:
            unfinished.unlink(missing_ok=True)
