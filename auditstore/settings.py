"""Settings, read once from the environment and passed in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self, cast

from auditstore.errors import ConfigurationError
from auditstore.hook_settings import HookSettings

PartitionPeriod = Literal["month", "day"]

_ADDRESS: Final = re.compile(
    r"(?:\[(?P<bracketed>[0-9A-Fa-f:.%]+)\]|(?P<host>[^\s:\[\]/@]*)):(?P<port>[0-9]{1,5})", re.ASCII
)
_LAST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a server listens. An empty host is every interface, port 0 any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT``; raise ConfigurationError for others."""
        found = _ADDRESS.fullmatch(text)
        if found is None or int(found["port"]) > _LAST_PORT:
            raise ConfigurationError(
                f"{text!r} is no address to listen on",
                hint="Write 127.0.0.1:9464, [::1]:9464, or :9464 for every interface.",
            )
        return cls(found["bracketed"] or found["host"] or "", int(found["port"]))


@dataclass(frozen=True, slots=True)
class Settings:
    """``AUDITSTORE_DATABASE_URL``, ``AUDITSTORE_HOME``, ``AUDITSTORE_SECRET_KEYS``,
    ``AUDITSTORE_PARTITIONS``, ``AUDITSTORE_LOG_FORMAT``, ``AUDITSTORE_METRICS_LISTEN``,
    ``AUDITSTORE_LEADCONDUIT_API_KEY`` and ``AUDITSTORE_LEADCONDUIT_URL``; and those of the hooks,
    ``AUDITSTORE_RECONCILE_*``.

    ``database_url``, ``secret_keys`` and ``leadconduit_api_key`` are secret: they are left out of
    the repr.
    """

    database_url: str | None = field(default=None, repr=False)
    home: Path = Path()
    secret_keys: tuple[str, ...] = field(default=(), repr=False)
    partitions: PartitionPeriod = "month"
    log_format: Literal["console", "json"] = "console"
    metrics_listen: ListenAddress | None = None
    leadconduit_api_key: str | None = field(default=None, repr=False)
    leadconduit_url: str | None = None
    hooks: HookSettings = field(default_factory=HookSettings)

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
            metrics_listen=_listen(env.get("AUDITSTORE_METRICS_LISTEN")),
            leadconduit_api_key=env.get("AUDITSTORE_LEADCONDUIT_API_KEY") or None,
            leadconduit_url=env.get("AUDITSTORE_LEADCONDUIT_URL") or None,
            hooks=HookSettings.from_environment(env),
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


def _listen(value: str | None) -> ListenAddress | None:
    if not value:
        return None
    try:
        return ListenAddress.parse(value)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"AUDITSTORE_METRICS_LISTEN: {error.message}", hint=error.hint
        ) from error


def _choice(env: Mapping[str, str], name: str, *choices: str) -> str:
    value = env.get(name) or choices[0]
    if value not in choices:
        raise ConfigurationError(
            f"{name} is {value!r}", hint=f"Set it to one of: {', '.join(choices)}."
        )
    return value
