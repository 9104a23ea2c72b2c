"""What a secret consists of, by kind of store: checked before it is kept.

Messages name fields that we know, never what was given: a mistyped field name may be the
secret itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import urlsplit

from auditstore.errors import ConfigurationError

Kind = Literal["s3", "azure", "leadconduit"]
KINDS: Final[tuple[Kind, ...]] = ("s3", "azure", "leadconduit")

#: The fields that each kind knows, the needed ones first.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "s3": ("access_key_id", "secret_access_key", "session_token", "role_arn", "external_id"),
    "azure": ("connection_string", "account_url", "sas_token", "account_key"),
    "leadconduit": ("api_key",),
}
_WHAT_IS_NEEDED: Final[Mapping[str, str]] = {
    "s3": "An s3 credential has access_key_id and secret_access_key, and may have "
    "session_token, role_arn and external_id.",
    "azure": "An azure credential has connection_string, or account_url with sas_token, "
    "or account_url with account_key.",
    "leadconduit": "A leadconduit credential has api_key, the key of an account's API.",
}
_SHOWN: Final = 4


def checked(kind: str, secret: Mapping[str, str]) -> dict[str, str]:
    """The secret with surrounding white space gone; ConfigurationError says what is wrong."""
    if kind not in FIELDS:
        raise ConfigurationError(
            "the credential's kind is not known", hint=f"Kinds are {', '.join(KINDS)}."
        )
    fields = {}
    for name, value in secret.items():
        if name not in FIELDS[kind]:
            raise _refused(kind, f"the secret has a field that {kind} credentials do not know")
        stripped = value.strip() if isinstance(value, str) else ""
        if not stripped:
            raise _refused(kind, f"the secret's {name} is empty or not text")
        if not stripped.isascii() or not stripped.isprintable():
            raise _refused(
                kind, f"the secret's {name} holds a line break or another character no key has"
            )
        fields[name] = stripped
    if kind == "leadconduit":
        if "api_key" not in fields:
            raise _refused(kind, "the secret lacks api_key")
        return fields
    return _checked_s3(fields) if kind == "s3" else _checked_azure(fields)


def masked(kind: str, secret: Mapping[str, str]) -> str:
    """What may be shown of a checked secret: the key id's end, or the account's name."""
    if kind == "leadconduit":
        return "an API key"
    if kind == "s3":
        key_id = secret["access_key_id"]
        return f"key id ...{key_id[-_SHOWN:]}" if len(key_id) >= 2 * _SHOWN else "key id ..."
    return f"account {_account(secret) or '(not named)'}"


def _checked_s3(fields: dict[str, str]) -> dict[str, str]:
    for needed in ("access_key_id", "secret_access_key"):
        if needed not in fields:
            raise _refused("s3", f"the secret lacks {needed}")
    if "external_id" in fields and "role_arn" not in fields:
        raise _refused("s3", "the secret has an external_id but no role_arn to use it with")
    return fields


def _checked_azure(fields: dict[str, str]) -> dict[str, str]:
    if set(fields) not in (
        {"connection_string"}, {"account_url", "sas_token"}, {"account_url", "account_key"},
    ):  # fmt: skip
        raise _refused("azure", "the secret's fields do not go together")
    if "connection_string" in fields:
        parts = _connection_parts(fields["connection_string"])
        whole = "accountkey" in parts or "sharedaccesssignature" in parts
        if not whole and parts.get("usedevelopmentstorage", "").lower() != "true":
            raise _refused(
                "azure", "the connection string has no AccountKey and no SharedAccessSignature"
            )
    else:
        url = urlsplit(fields["account_url"])
        if url.scheme not in {"http", "https"} or not url.hostname or url.username is not None:
            raise _refused("azure", "the account_url is not an HTTP URL with a host")
        if url.query or url.fragment:
            raise _refused("azure", "the account_url has a query; a SAS token goes into sas_token")
    return fields


def _connection_parts(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(";") if part.strip())
    return {name.strip().lower(): value for name, _, value in pairs}


def _account(secret: Mapping[str, str]) -> str | None:
    """The account's name, which is no secret, if one can be told."""
    parts = _connection_parts(secret.get("connection_string", ""))
    url = secret.get("account_url") or parts.get("blobendpoint", "")
    name = parts.get("accountname") or (urlsplit(url).hostname or "").partition(".")[0]
    # Whatever does not look like an account's name is not shown: it may be a pasted key.
    return name if 3 <= len(name) <= 24 and name.isascii() and name.isalnum() else None


def _refused(kind: str, what: str) -> ConfigurationError:
    return ConfigurationError(what, hint=_WHAT_IS_NEEDED[kind])
