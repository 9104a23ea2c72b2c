"""Who is told of the differences that scheduled reconciliations find; part of the settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlsplit

from auditstore.destinations import is_loopback
from auditstore.errors import ConfigurationError

_NAME: Final = "AUDITSTORE_RECONCILE_"
_LONGEST: Final = 60.0


@dataclass(frozen=True, slots=True)
class HookSettings:
    """A webhook, a command, both or neither; ``timeout`` in seconds, for each try.

    The URL and the secret are left out of the repr: many services put a secret into the URL.
    """

    webhook: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    command: tuple[str, ...] = ()
    timeout: float = 10.0

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Self:
        """Read them; raise ConfigurationError for a value that cannot be used."""
        insecure = env.get(f"{_NAME}WEBHOOK_INSECURE") or "no"
        if insecure not in {"no", "yes"}:
            raise ConfigurationError(
                f"{_NAME}WEBHOOK_INSECURE is {insecure!r}", hint="Set it to one of: no, yes."
            )
        return cls(
            webhook=_webhook(env.get(f"{_NAME}WEBHOOK"), insecure=insecure == "yes"),
            secret=env.get(f"{_NAME}WEBHOOK_SECRET") or None,
            command=_command(env.get(f"{_NAME}COMMAND")),
            timeout=_timeout(env.get(f"{_NAME}HOOK_TIMEOUT")),
        )


def _webhook(url: str | None, *, insecure: bool) -> str | None:
    """A URL that is https, or on this machine, or allowed to be neither; it is never shown."""
    if not url:
        return None
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port  # raises for a port that is none
    except ValueError as error:
        raise ConfigurationError(
            f"{_NAME}WEBHOOK is no URL", hint="Write https://host/path."
        ) from error
    if parts.scheme not in {"https", "http"} or not host:
        raise ConfigurationError(f"{_NAME}WEBHOOK is no https URL", hint="Write https://host/path.")
    if parts.username is not None:
        raise ConfigurationError(
            f"{_NAME}WEBHOOK holds a user name, which is not sent",
            hint=f"Sign with {_NAME}WEBHOOK_SECRET, or put a token into the path.",
        )
    if parts.scheme == "http" and not (insecure or is_loopback(host)):
        raise ConfigurationError(
            f"{_NAME}WEBHOOK would send the findings to {host} unencrypted",
            hint=f"Use https, or say that you mean it: {_NAME}WEBHOOK_INSECURE=yes.",
        )
    return url


def _command(value: str | None) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(value or ""))
    except ValueError as error:
        raise ConfigurationError(
            f"{_NAME}COMMAND cannot be taken apart into words: {error}",
            hint="Quote its words as for a shell; none is started.",
        ) from error


def _timeout(value: str | None) -> float:
    if not value:
        return HookSettings().timeout
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST:
        raise ConfigurationError(
            f"{_NAME}HOOK_TIMEOUT is {value!r}", hint=f"Write seconds, up to {_LONGEST:.0f}."
        )
    return seconds
