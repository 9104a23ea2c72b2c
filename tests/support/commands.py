"""Running the command line, in this process or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from click.testing import CliRunner, Result

from auditstore.cli import main

_OURS = ("AUDITSTORE_", "AWS_", "AZURE_")


def clean_environment() -> dict[str, str]:
    """This process's environment without what would point auditstore or a cloud anywhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}


@dataclass
class CommandLine:
    """``auditstore`` with one environment; remembers all that it ever printed."""

    environment: Mapping[str, str]
    printed: list[str] = field(default_factory=list)

    def run(
        self,
        *arguments: str,
        stdin: str | None = None,
        code: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        """Run a command; its exit code must be ``code``."""
        cleared = {name: None for name in os.environ if name.startswith(_OURS)}
        env = cleared | dict(self.environment) | dict(environment or {})
        result = CliRunner().invoke(main, arguments, input=stdin, env=env)
        self.printed.append(result.output)
        assert result.exit_code == code, result.output
        return result

    def json(self, *arguments: str) -> Any:
        """Run a command with ``--json`` and parse what it prints."""
        return orjson.loads(self.run(*arguments, "--json").stdout)

    def error(self, *arguments: str, stdin: str | None = None, code: int = 2) -> tuple[str, str]:
        """Run a command that fails; return what happened and what to do."""
        result = self.run(*arguments, stdin=stdin, code=code)
        lines = result.stderr.splitlines()
        assert len(lines) == 2, lines
        assert lines[0].startswith("Error: ")
        assert lines[1].startswith("Try:   ")
        return lines[0].removeprefix("Error: "), lines[1].removeprefix("Try:   ")

    def process(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "auditstore", *arguments],
            env=clean_environment() | dict(self.environment),
            capture_output=True, text=True, check=False, timeout=120, **options,
        )  # fmt: skip
        self.printed.append(done.stdout + done.stderr)
        return done
