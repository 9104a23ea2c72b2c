"""Commands on a terminal of their own: what they print there, control sequences and all."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence

from support.commands import clean_environment

# What our own colours, progress and cursor moves consist of; nothing else may come through.
_OURS = re.compile(r"\r*\x1b\[[0-9;?]*[mKAhl]\r*")
_MARK = "--- the next command ---"
# One process for all of them: most of the time of a short command goes into its imports.
_RUN = f"""
import json, sys
from auditstore.cli import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit:
        pass
    print("{_MARK}", flush=True)
"""


def on_terminal(environment: Mapping[str, str], commands: Sequence[Sequence[str]]) -> list[str]:
    """What ``auditstore`` prints to a terminal for each command, standard error included."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, json.dumps(commands)],
        env=clean_environment() | {"TERM": "xterm-256color", "COLUMNS": "250"} | dict(environment),
        stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    said = b""
    try:
        while chunk := os.read(controller, 65536):
            said += chunk
    except OSError:  # Linux says so when the last writer is gone
        pass
    finally:
        os.close(controller)
    process.wait(60)
    parts = said.decode().split(_MARK)
    assert len(parts) == len(commands) + 1, said.decode()
    return parts[:-1]


def unprintable(text: str) -> str:
    """The characters that a terminal could obey or be misled by, our own sequences left out."""
    return "".join(
        c for c in _OURS.sub("", text.replace("\r\n", "\n")) if not c.isprintable() and c != "\n"
    )
