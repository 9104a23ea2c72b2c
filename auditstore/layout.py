"""Where in a bucket things lie: the keys of files and of single events.

Every part that comes from data is percent-encoded (RFC 3986, nothing but letters, digits and
``_.-~`` kept), so no flow id and no lead id can leave its place in a key.
"""

from __future__ import annotations

import hashlib
import re
import string
from datetime import UTC, datetime
from typing import Final, Literal
from urllib.parse import quote

from auditstore.errors import ConfigurationError

Format = Literal["ndjson.gz", "json"]
FORMATS: Final[tuple[Format, ...]] = ("ndjson.gz", "json")

#: One file of many events; names sort in the order of sequence.
DEFAULT_TEMPLATE: Final = (
    "flow_id={flow}/date={date}/hour={hour}/{stream}-{sequence}-{first}-{last}.ndjson.gz"
)
#: LeadConduit's own layout, one object an event; it is not configurable.
EVENT_TEMPLATE: Final = "{lead}/{event}.json"
#: Where the events without a lead go in LeadConduit's layout. No lead id is encoded like this.
NO_LEAD: Final = "%no-lead"
#: What the names of files begin with that a folder has not finished.
RESERVED_START: Final = ".tmp-"
_LONGEST_LEAD: Final = 200
_LEAD_START: Final = 100
#: S3's limit and the smaller of the two clouds', in bytes of UTF-8.
MAX_KEY_BYTES: Final = 1024
#: What file systems take for one part of a path, in bytes.
MAX_NAME_BYTES: Final = 255

_FIELDS: Final = (
    "flow", "date", "year", "month", "day", "hour", "stream", "sequence", "first", "last",
)  # fmt: skip
# What `file_key` writes for them. Of exact widths, since fields may stand side by side.
_PATTERNS: Final = {
    "date": "[0-9]{4}-[0-9]{2}-[0-9]{2}", "year": "[0-9]{4}", "month": "[0-9]{2}",
    "day": "[0-9]{2}", "hour": "[0-9]{2}", "first": "[0-9]{16,}", "last": "[0-9]{16,}",
}  # fmt: skip
# A key is unique when it says which file of which stream: a location may outlive a stream.
_NEEDED: Final = ("stream", "sequence")


def encode_part(text: str) -> str:
    """One path segment from arbitrary text.

    Dots at the end are encoded too: ``.`` and ``..`` lose their meaning, and Azure drops others.
    So is the first one of a name that a folder keeps for unfinished files.
    """
    encoded = quote(text, safe="")
    if encoded.startswith(RESERVED_START):
        encoded = "%2E" + encoded[1:]
    bare = encoded.rstrip(".")
    return bare + "%2E" * (len(encoded) - len(bare))


def join(prefix: str, name: str) -> str:
    """A full key under a prefix, which may be empty."""
    return f"{prefix}/{name}" if prefix else name


def file_key(
    template: str,
    *,
    prefix: str,
    flow_id: str,
    stream_id: int,
    sequence: int,
    first: int,
    last: int,
    recorded_at: datetime,
) -> str:
    """The key of a file: numbers zero-padded so that names sort, date parts in UTC."""
    at = recorded_at.astimezone(UTC)
    name = template.format(
        flow=encode_part(flow_id),
        date=f"{at:%Y-%m-%d}",
        year=f"{at:%Y}",
        month=f"{at:%m}",
        day=f"{at:%d}",
        hour=f"{at:%H}",
        stream=f"{stream_id:06d}",
        sequence=f"{sequence:010d}",
        first=f"{first:016d}",
        last=f"{last:016d}",
    )
    return join(prefix, name)


def event_key(*, prefix: str, lead_id: str | None, event_id: str) -> str:
    """LeadConduit's key of one event: ``<prefix>/<lead id>/<event id>.json``."""
    lead = encode_part(lead_id) if lead_id else NO_LEAD
    if lead_id and len(lead) > _LONGEST_LEAD:
        # A file system takes 255 bytes a name, and encoding may triple an id. No encoded id
        # holds a bare "%sha256-", so the names stay apart.
        lead = f"{lead[:_LEAD_START]}%sha256-{hashlib.sha256(lead_id.encode()).hexdigest()}"
    return join(prefix, f"{lead}/{event_id}.json")


def check_template(
    template: str, *, prefix: str, flow_id: str, max_part_bytes: int | None = None
) -> None:
    """Raise ConfigurationError for a template by which two files could share a key.

    Also for one whose keys are longer than the stores take, or have a part that is longer than
    ``max_part_bytes``.
    """
    hint = f"Write a template like {DEFAULT_TEMPLATE}"
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigurationError(f"the key template is malformed: {error}", hint=hint) from error
    fields = [name for _, name, _, _ in parts if name is not None]
    for _, name, spec, conversion in parts:
        if name is not None and (name not in _FIELDS or spec or conversion):
            raise ConfigurationError(
                f"the key template has an unknown field {{{name}}}",
                hint=f"Fields are {', '.join('{' + field + '}' for field in _FIELDS)}.",
            )
    missing = [name for name in _NEEDED if name not in fields]
    if missing:
        raise ConfigurationError(
            "the key template could make two files share a key: it lacks "
            + " and ".join("{" + name + "}" for name in missing),
            hint=hint,
        )
    literal = "".join(text for text, _, _, _ in parts)
    if not literal.isascii() or not literal.isprintable() or "\\" in literal:
        raise ConfigurationError(
            "the key template may hold only printable ASCII characters, no backslash", hint=hint
        )
    if any(segment in {"", ".", ".."} for segment in template.split("/")):
        raise ConfigurationError(
            "the key template has an empty, '.' or '..' path segment", hint=hint
        )
    longest = file_key(
        template, prefix=prefix, flow_id=flow_id, stream_id=10**9, sequence=1, first=1, last=1,
        recorded_at=datetime(2000, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    if len(longest.encode()) > MAX_KEY_BYTES:
        raise ConfigurationError(
            f"keys would be {len(longest.encode())} bytes long, over {MAX_KEY_BYTES}",
            hint="Shorten the prefix or the template.",
        )
    part = max(len(part) for part in longest.split("/"))
    if max_part_bytes is not None and part > max_part_bytes:
        raise ConfigurationError(
            f"keys would have a part of {part} bytes, and a file's name takes {max_part_bytes}",
            hint="Choose a template without {flow}: --template "
            "'date={date}/hour={hour}/{stream}-{sequence}-{first}-{last}.ndjson.gz'.",
        )


def static_prefix(template: str, *, prefix: str, flow_id: str, stream_id: int) -> str:
    """What all keys of a stream begin with, the longest common start of its template."""
    fixed = ""
    for text, name, _, _ in string.Formatter().parse(template):
        fixed += text
        if name == "flow":
            fixed += encode_part(flow_id)
        elif name == "stream":
            fixed += f"{stream_id:06d}"
        elif name is not None:
            break
    return join(prefix, fixed)


def key_pattern(template: str, *, prefix: str, flow_id: str, stream_id: int) -> re.Pattern[str]:
    """Matches the keys of a stream's files; its group ``sequence`` is their number."""
    pattern = re.escape(join(prefix, ""))
    seen = False
    for text, name, _, _ in string.Formatter().parse(template):
        pattern += re.escape(text)
        if name == "flow":
            pattern += re.escape(encode_part(flow_id))
        elif name == "stream":
            pattern += f"{stream_id:06d}"
        elif name == "sequence":
            pattern += "(?P=sequence)" if seen else "(?P<sequence>[0-9]{10,})"
            seen = True
        elif name is not None:
            pattern += _PATTERNS[name]
    return re.compile(pattern)
