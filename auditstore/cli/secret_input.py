"""How a secret comes in: standard input, a file, the environment, or a hidden prompt.

Never as an argument, which every process on the machine can see. No message quotes what
was read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import orjson

from auditstore.errors import ConfigurationError
from auditstore.secret_fields import FIELDS

_Command = TypeVar("_Command", bound=Callable[..., Any])

_HOW: Final = "Give a JSON object, or lines of name=value; fields are {fields}."
_MAX_BYTES: Final = 64 * 1024
#: Where each field is in the environment, as the clouds' own tools name it.
_ENVIRONMENT: Final[Mapping[str, Mapping[str, str]]] = {
    "s3": {
        "access_key_id": "AWS_ACCESS_KEY_ID",
        "secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "session_token": "AWS_SESSION_TOKEN",
    },
    "azure": {"connection_string": "AZURE_STORAGE_CONNECTION_STRING"},
    "leadconduit": {"api_key": "AUDITSTORE_LEADCONDUIT_API_KEY"},
}
_AZURE_PARTS: Final = {
    "account_key": "AZURE_STORAGE_KEY", "sas_token": "AZURE_STORAGE_SAS_TOKEN",
}  # fmt: skip
#: What a terminal is asked for; everything else needs one of the other ways.
_PROMPTS: Final[Mapping[str, Mapping[str, str]]] = {
    "s3": {"access_key_id": "Access key id", "secret_access_key": "Secret access key"},
    "azure": {"connection_string": "Connection string"},
    "leadconduit": {"api_key": "API key"},
}


def secret_options(command: _Command) -> _Command:
    """The options ``--from-file`` and ``--from-env``, for :func:`read_secret`."""
    for option in (
        click.option(
            "--from-env", is_flag=True,
            help="Read AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or "
            "AZURE_STORAGE_CONNECTION_STRING (or AZURE_STORAGE_ACCOUNT with "
            "AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN), or AUDITSTORE_LEADCONDUIT_API_KEY.",
        ),
        click.option(
            "--from-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Read the secret from a file.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def read_secret(kind: str, *, from_file: Path | None, from_env: bool) -> dict[str, str]:
    """The secret's fields, not yet checked for completeness."""
    if from_file is not None and from_env:
        raise click.UsageError("--from-file and --from-env exclude each other.")
    if from_env:
        return _from_environment(kind, os.environ)
    if from_file is not None:
        try:
            return parse(kind, from_file.read_bytes())
        except OSError as error:
            raise ConfigurationError(
                f"the file cannot be read: {error.strerror}", hint="Check its name and its mode."
            ) from error
    if sys.stdin.isatty():
        return _prompted(kind)
    return parse(kind, sys.stdin.buffer.read(_MAX_BYTES + 1))


def parse(kind: str, data: bytes) -> dict[str, str]:
    """Fields from a JSON object, from ``name=value`` lines, or an Azure connection string.

    Names may be written as the clouds' tools write them: ``AWS_ACCESS_KEY_ID``,
    ``aws_secret_access_key``. Blank lines and lines that begin with ``#`` or ``[`` are skipped.
    """
    hint = _HOW.format(fields=", ".join(FIELDS[kind]))
    if len(data) > _MAX_BYTES:
        raise ConfigurationError("the secret is over 64 KiB long", hint=hint)
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ConfigurationError("the secret is not UTF-8 text", hint=hint) from None
    if not text:
        raise ConfigurationError("the secret is empty", hint=hint)
    if text.startswith("{"):
        return _from_json(text, hint)
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("#", "["))]
    if kind == "azure" and len(lines) == 1 and ";" in lines[0] and _is_connection(lines[0]):
        return {"connection_string": lines[0]}
    fields: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        name, separator, value = line.partition("=")
        if not separator:
            raise ConfigurationError(f"line {number} of the secret has no `=`", hint=hint)
        _take(fields, name, value.strip().strip("\"'"), hint)
    return fields


def _from_json(text: str, hint: str) -> dict[str, str]:
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError:
        # From None: the decoder's error carries the document.
        raise ConfigurationError("the secret is not valid JSON", hint=hint) from None
    fields: dict[str, str] = {}
    for name, value in given.items():
        if not isinstance(value, str):
            raise ConfigurationError("a field of the secret is not text", hint=hint)
        _take(fields, name, value, hint)
    return fields


def _take(fields: dict[str, str], name: str, value: str, hint: str) -> None:
    known = name.strip().lower().removeprefix("aws_").removeprefix("azure_storage_")
    if known in fields:
        raise ConfigurationError("a field of the secret is given twice", hint=hint)
    fields[known] = value


def _is_connection(line: str) -> bool:
    names = {part.partition("=")[0].strip().lower() for part in line.split(";")}
    return not names.isdisjoint({"accountname", "blobendpoint", "usedevelopmentstorage"})


def _from_environment(kind: str, env: Mapping[str, str]) -> dict[str, str]:
    found = {field: env[name] for field, name in _ENVIRONMENT[kind].items() if env.get(name)}
    if kind == "azure" and not found and env.get("AZURE_STORAGE_ACCOUNT"):
        parts = {field: env[name] for field, name in _AZURE_PARTS.items() if env.get(name)}
        url = f"https://{env['AZURE_STORAGE_ACCOUNT']}.blob.core.windows.net"
        found = {"account_url": url, **parts}
    if not found:
        raise ConfigurationError(
            f"the environment holds no {kind} secret",
            hint=f"Set {' and '.join(_ENVIRONMENT[kind].values())}.",
        )
    return found


def _prompted(kind: str) -> dict[str, str]:
    return {
        field: click.prompt(title, hide_input=True, err=True)
        for field, title in _PROMPTS[kind].items()
    }
