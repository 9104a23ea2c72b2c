"""A command on a terminal of its own: what it prints there, control sequences and all."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping

from support.commands import clean_environment

# What our own colours, progress and cursor moves consist of; nothing else may come through.
_OURS = re.compile(r"\x1b\[[0-9;?]*[mKAGhlJ]")


def on_terminal(environment: Mapping[str, str], *arguments: str) -> str:
    """What ``auditstore`` prints to a terminal, standard error included."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "auditstore", *arguments],
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
    return said.decode()


def unprintable(text: str) -> str:
    """The characters that a terminal could obey or be misled by, our own sequences left out."""
    return "".join(
        c for c in _OURS.sub("", text.replace("\r\n", "\n")) if not c.isprintable() and c != "\n"
    )
