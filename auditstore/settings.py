"""Settings, read once from the environment and passed in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, cast

from auditstore.errors import ConfigurationError

PartitionPeriod = Literal["month", "day"]


@dataclass(frozen=True, slots=True)
class Settings:
    """``AUDITSTORE_DATABASE_URL``, ``AUDITSTORE_HOME``, ``AUDITSTORE_SECRET_KEYS``,
    ``AUDITSTORE_PARTITIONS`` and ``AUDITSTORE_LOG_FORMAT``.

    ``database_url`` and ``secret_keys`` are secret: they are left out of the repr.
    """

    database_url: str | None = field(default=None, repr=False)
    home: Path = Path()
    secret_keys: tuple[str, ...] = field(default=(), repr=False)
    partitions: PartitionPeriod = "month"
    log_format: Literal["console", "json"] = "console"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings; raise ConfigurationError for a value that cannot be used."""
        env = os.environ if environment is None else environment
        return cls(
            database_url=env.get("AUDITSTORE_DATABASE_URL") or None,
            home=_home(env),
            secret_keys=tuple(
                key for key in env.get("AUDITSTORE_SECRET_KEYS", "").replace(",", " ").split()
            ),
            partitions=cast(
                "PartitionPeriod", _choice(env, "AUDITSTORE_PARTITIONS", "month", "day")
            ),
            log_format=cast(
                "Literal['console', 'json']",
                _choice(env, "AUDITSTORE_LOG_FORMAT", "console", "json"),
            ),
        )

    def require_database_url(self) -> str:
        """The database's URL, or an error that says how to give one."""
        if self.database_url is None:
            raise ConfigurationError(
                "no database is named",
                hint="Set AUDITSTORE_DATABASE_URL, for example postgresql://user@host/database.",
            )
        return self.database_url


def _home(env: Mapping[str, str]) -> Path:
    if env.get("AUDITSTORE_HOME"):
        return Path(env["AUDITSTORE_HOME"]).expanduser().absolute()
    data = env.get("XDG_DATA_HOME")
    base = Path(data) if data else Path(env.get("HOME") or Path.cwd()) / ".local" / "share"
    return base / "auditstore"


def _choice(env: Mapping[str, str], name: str, *choices: str) -> str:
    value = env.get(name) or choices[0]
    if value not in choices:
        raise ConfigurationError(
            f"{name} is {value!r}", hint=f"Set it to one of: {', '.join(choices)}."
        )
    return value
