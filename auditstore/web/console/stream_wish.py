"""What the configuration dialog asks for, checked field by field.

A wish holds what was typed; its errors are named after the form's fields, so that each is shown
where it belongs and nothing that was typed is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from auditstore.credentials import Credential
from auditstore.destinations import Destination, check_encryption
from auditstore.errors import ConfigurationError
from auditstore.layout import FORMATS, Format
from auditstore.secret_fields import checked
from auditstore.streams import Limits, Stream

Service = Literal["s3", "azure"]
SERVICES: Final[tuple[Service, ...]] = ("s3", "azure")
#: What people call them.
SERVICE_NAMES: Final[Mapping[str, str]] = {"s3": "Amazon S3", "azure": "Azure Blob Storage",
                                           "file": "Folder"}  # fmt: skip
CONTAINER_NAMES: Final[Mapping[str, str]] = {"s3": "Bucket", "azure": "Container"}
#: The value of the credential's field that opens the fields of a new one.
NEW: Final = "+new"
#: The secret's fields that the dialog asks for.
SECRET_FIELDS: Final[Mapping[Service, tuple[str, ...]]] = {
    "s3": ("access_key_id", "secret_access_key"),
    "azure": ("connection_string",),
}
_DEFAULT_DELAY: Final = Limits().max_delay


@dataclass(slots=True)
class Wish:
    """One service as the form has it; ``errors`` are by field, without the service's name.

    ``destination`` is there once place and endpoint can be used, ``secret`` where a new
    credential is asked for and complete.
    """

    service: Service
    on: bool
    stream_id: int | None = None
    credential: str = ""
    name: str = ""
    bucket: str = ""
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    format: Format = "ndjson.gz"
    max_delay: str = f"{_DEFAULT_DELAY:g}"
    destination: Destination | None = None
    delay: float = _DEFAULT_DELAY
    secret: dict[str, str] | None = field(default=None, repr=False)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def is_new_credential(self) -> bool:
        """Whether the credential is to be added with this change."""
        return self.credential == NEW


def shown_stream(service: Service, streams: list[Stream]) -> Stream | None:
    """The stream that the dialog is about: the enabled one, or else the one changed last."""
    own = [each for each in streams if each.url.startswith(f"{service}:")]
    return max(own, key=lambda each: (each.enabled, each.changed_at), default=None)


def wish_of(service: Service, stream: Stream | None) -> Wish:
    """What the dialog shows before anything was typed."""
    if stream is None:
        return Wish(service, on=False)
    wish = Wish(
        service, on=stream.enabled, stream_id=stream.stream_id,
        credential=stream.credential_name or "", endpoint=stream.endpoint_url or "",
        region=stream.region or "", format=stream.format,
        max_delay=f"{stream.limits.max_delay:g}", delay=stream.limits.max_delay,
    )  # fmt: skip
    try:
        wish.destination = stream.destination
        wish.bucket, wish.prefix = stream.destination.bucket, stream.destination.prefix
    except ConfigurationError as error:
        wish.errors["bucket"] = f"{error.message} {error.hint}"
    return wish


def typed_wish(service: Service, form: Mapping[str, str], known: list[Credential]) -> Wish:
    """What was typed, with what is wrong with it."""

    def typed(name: str) -> str:
        return form.get(f"{service}_{name}", "").strip()

    number = typed("stream")
    wish = Wish(
        service, on=bool(form.get(f"{service}_on")),
        stream_id=int(number) if number.isdecimal() and len(number) < 19 else None,
        credential=typed("credential"), name=typed("name"), bucket=typed("bucket"),
        prefix=typed("prefix").strip("/"), endpoint=typed("endpoint"), region=typed("region"),
        max_delay=typed("max_delay"),
    )  # fmt: skip
    if not wish.on:
        return wish
    _check_place(wish)
    _check_credential(wish, form, known)
    if typed("format") in FORMATS:
        wish.format = "json" if typed("format") == "json" else "ndjson.gz"
    else:
        wish.errors["format"] = "Choose one of the two."
    try:
        wish.delay = float(wish.max_delay.replace(",", ".") or "nan")
        Limits(max_delay=wish.delay)
    except (ValueError, ConfigurationError):
        wish.errors["max_delay"] = "Write a number of seconds, 0 to 3600."
    return wish


def _check_place(wish: Wish) -> None:
    container = CONTAINER_NAMES[wish.service].lower()
    if not wish.bucket:
        wish.errors["bucket"] = f"Name the {container}."
        return
    parts = (("bucket", ("", None)), ("prefix", (wish.prefix, None)),
             ("endpoint", (wish.prefix, wish.endpoint or None)))  # fmt: skip
    for name, (prefix, endpoint) in parts:
        try:
            wish.destination = Destination(wish.service, wish.bucket, prefix, endpoint)
        except ConfigurationError as error:
            wish.errors[name] = _sentence(error)
            wish.destination = None
            return
    try:
        check_encryption(wish.endpoint or None, {})
    except ConfigurationError:
        wish.errors["endpoint"] = (
            "http:// to another machine would carry the events unencrypted. Write https://."
        )


def _check_credential(wish: Wish, form: Mapping[str, str], known: list[Credential]) -> None:
    if not wish.is_new_credential:
        kinds = {each.name: each.kind for each in known}
        if wish.credential and kinds.get(wish.credential) != wish.service:
            wish.errors["credential"] = "There is no such credential any more. Choose another."
        return
    given = {
        name: form.get(f"{wish.service}_{name}", "") for name in SECRET_FIELDS[wish.service]
    }  # fmt: skip
    if not wish.name:
        wish.errors["name"] = "Give it a name, by which you find it again."
    elif any(each.name == wish.name for each in known):
        wish.errors["name"] = f"There is a credential {wish.name} already. Choose another name."
    empty = [name for name, value in given.items() if not value.strip()]
    wish.errors |= {name: f"Enter the {name.replace('_', ' ')}." for name in empty}
    if empty:
        return
    try:
        wish.secret = checked(wish.service, given)
    except ConfigurationError as error:
        wish.errors[SECRET_FIELDS[wish.service][-1]] = _sentence(error)


def _sentence(error: ConfigurationError) -> str:
    return f"{error.message[:1].upper()}{error.message[1:]}. {error.hint}".strip()
