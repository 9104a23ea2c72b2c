"""Where a stream's files go: the URL an operator writes, checked and taken apart.

``s3://bucket/prefix``, ``azure://container/prefix`` or ``file:///folder/prefix``. S3 and
Azure URLs are taken literally (no percent-decoding: ``%20`` is three characters);
``file`` URLs are percent-decoded, as ``pathlib.Path.as_uri`` writes them.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urlsplit

from auditstore.errors import ConfigurationError

#: The option by which an operator records that a server may be spoken to unencrypted.
INSECURE_HTTP = "insecure_http"
#: The longest prefix, in bytes of UTF-8; the rest of S3's 1024 is for the key's own part.
MAX_PREFIX_BYTES = 512

_EXAMPLES = "Write s3://bucket/prefix, azure://container/prefix or file:///folder/prefix."
_S3_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,61})[a-z0-9]")
_AZURE_CONTAINER = re.compile(r"[a-z0-9](?:[a-z0-9-]{1,61})[a-z0-9]")
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Bucket names are one namespace within each of these, whatever regional endpoint is used.
_AWS_DOMAINS = ("amazonaws.com", "api.aws", "amazonaws.com.cn", "api.amazonwebservices.com.cn")


@dataclass(frozen=True, slots=True)
class Destination:
    """A checked destination; an invalid one cannot be made.

    ``scheme`` is ``s3``, ``azure`` or ``file``; ``bucket`` the bucket, the container or the
    absolute folder; ``prefix`` has no slash at either end and is empty for folders, where
    the whole path is the folder. ``endpoint_url`` is the server other than the cloud's own.
    """

    scheme: str
    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no store could hold, with what to write instead."""
        if self.scheme == "s3":
            _check_s3_bucket(self.bucket)
        elif self.scheme == "azure":
            _check_azure_container(self.bucket)
        elif self.scheme == "file":
            _check_folder(self)
        else:
            raise ConfigurationError("the destination's scheme is not known", hint=_EXAMPLES)
        if self.prefix:
            _check_prefix(self.prefix, scheme=self.scheme)
        if self.endpoint_url is not None:
            if self.scheme == "file":
                raise ConfigurationError(
                    "a folder has no endpoint URL", hint="Leave the endpoint URL out."
                )
            object.__setattr__(self, "endpoint_url", _normal_endpoint(self.endpoint_url))

    @property
    def url(self) -> str:
        """The URL that parses to this destination (its endpoint is told apart)."""
        if self.scheme == "file":
            return "file://" + quote(self.bucket)
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    @property
    def is_aws(self) -> bool:
        """Whether this is Amazon's own S3, by its own or a regional endpoint."""
        return self.scheme == "s3" and (
            self.endpoint_url is None or _aws_domain(self.endpoint_url) is not None
        )

    @property
    def location(self) -> str:
        """One string per place: equal exactly when two destinations write to one place.

        All of Amazon's endpoints of a partition are one server, since its bucket names are
        one namespace. Two Azure containers without an endpoint URL count as one place
        whatever account their credentials lead to: give an endpoint URL to tell them apart.
        """
        return f"{self._container}/{self.prefix}" if self.prefix else self._container

    def overlaps(self, other: Destination) -> bool:
        """Whether a file of one could lie among the files of the other."""
        if self.scheme == "file" and other.scheme == "file":
            return _contains(self.bucket, other.bucket) or _contains(other.bucket, self.bucket)
        return self._container == other._container and (
            _contains(self.prefix, other.prefix) or _contains(other.prefix, self.prefix)
        )

    @property
    def _container(self) -> str:
        if self.scheme == "file":
            return self.url
        endpoint = self.endpoint_url or ""
        if self.is_aws:
            domain = _aws_domain(endpoint)
            endpoint = "cn" if domain is not None and domain.endswith(".cn") else ""
        return f"{self.scheme}+{endpoint}//{self.bucket}"


def parse_destination(url: str, endpoint_url: str | None = None) -> Destination:
    """The destination that ``url`` names; :class:`ConfigurationError` says what is wrong.

    A single slash at the end is ignored. Messages never repeat the URL, since what does not
    belong into it may be a secret.
    """
    _check_characters(url, what="URL")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"s3", "azure", "file"}:
        raise ConfigurationError("the destination is not a URL with a known scheme", hint=_EXAMPLES)
    if "?" in rest or "#" in rest:
        raise ConfigurationError(
            "a destination URL has no query and no fragment",
            hint="Keep secrets and settings out of the URL: use a credential and options.",
        )
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        raise ConfigurationError(
            "a destination URL has no user or password",
            hint="Keep secrets out of the URL: store them with `auditstore credential add`.",
        )
    if scheme == "file":
        if authority not in {"", "localhost"} or not slash:
            raise ConfigurationError(
                "a file URL names an absolute folder on this machine",
                hint="Write three slashes: file:///folder/prefix.",
            )
        return Destination("file", _decoded_folder(path), "", endpoint_url)
    return Destination(scheme, authority, path.removesuffix("/"), endpoint_url)


def check_encryption(url: str | None, options: Mapping[str, str]) -> None:
    """Refuse ``http`` to another machine unless the stream's options say that it is meant."""
    parts = urlsplit(url or "")
    host = parts.hostname or ""
    if parts.scheme != "http" or is_loopback(host) or options.get(INSECURE_HTTP) == "yes":
        return
    raise ConfigurationError(
        f"http:// to {host} would carry events unencrypted, to whoever answers there",
        hint="Write https://, or record on the stream that this is meant: "
        f"--option {INSECURE_HTTP}=yes.",
    )


def is_loopback(host: str) -> bool:
    """Whether ``host`` is a name or an address of this machine alone."""
    name = host.strip("[]").lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _decoded_folder(path: str) -> str:
    try:
        decoded = unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            "the folder's percent-encoding is not UTF-8", hint="Percent-encode UTF-8 bytes."
        ) from error
    return "/" + decoded.removesuffix("/")


def _contains(outer: str, inner: str) -> bool:
    return outer in {"", inner} or inner.startswith(outer + "/")


def _check_characters(text: str, *, what: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"the destination's {what} is not valid Unicode", hint="Write it in UTF-8."
        ) from error
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ConfigurationError(
            f"the destination's {what} holds a control character",
            hint="Remove line breaks, tabs and other control characters.",
        )


def _check_segments(path: str, *, what: str) -> None:
    segments = path.split("/")
    if "" in segments:
        raise ConfigurationError(
            f"the destination's {what} has an empty part between slashes",
            hint="Write single slashes only.",
        )
    if "." in segments or ".." in segments:
        raise ConfigurationError(
            f"the destination's {what} has a part `.` or `..`",
            hint="Write the path out without them.",
        )


def _check_prefix(prefix: str, *, scheme: str) -> None:
    _check_characters(prefix, what="prefix")
    _check_segments(prefix, what="prefix")
    size = len(prefix.encode("utf-8"))
    if size > MAX_PREFIX_BYTES:
        raise ConfigurationError(
            f"the destination's prefix is {size} bytes long; {MAX_PREFIX_BYTES} is the limit",
            hint="Choose a shorter prefix.",
        )
    if scheme == "azure" and ("\\" in prefix or any(s.endswith(".") for s in prefix.split("/"))):
        raise ConfigurationError(
            "the destination's prefix has a backslash or a part that ends with a dot, "
            "which Azure does not keep",
            hint="Choose a prefix without them.",
        )


def _check_s3_bucket(name: str) -> None:
    if not _S3_BUCKET.fullmatch(name) or ".." in name or _is_address(name):
        raise ConfigurationError(
            "the bucket name is not one that S3 allows",
            hint="3 to 63 characters: lower case letters, digits, hyphens and single dots, "
            "a letter or digit at both ends, not an IP address.",
        )


def _check_azure_container(name: str) -> None:
    if not _AZURE_CONTAINER.fullmatch(name) or "--" in name:
        raise ConfigurationError(
            "the container name is not one that Azure allows",
            hint="3 to 63 characters: lower case letters, digits and single hyphens, "
            "a letter or digit at both ends.",
        )


def _check_folder(destination: Destination) -> None:
    folder = destination.bucket
    if destination.prefix or not folder.startswith("/") or folder == "/":
        raise ConfigurationError(
            "the destination names no folder", hint="Write file:///folder/prefix."
        )
    _check_characters(folder, what="folder")
    _check_segments(folder[1:], what="folder")
    if posixpath.normpath(folder) != folder:  # pragma: no cover - the checks above imply it
        raise ConfigurationError("the folder is not a normal path", hint=_EXAMPLES)


def _is_address(name: str) -> bool:
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True


def _normal_endpoint(endpoint_url: str) -> str:
    """The endpoint in one spelling: lower case host, no default port, no slash at the end."""
    hint = "Write http:// or https://, a host, a port if need be, and nothing secret."
    _check_characters(endpoint_url, what="endpoint URL")
    try:
        parts = urlsplit(endpoint_url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError("the endpoint URL cannot be read", hint=hint) from error
    if parts.scheme not in _DEFAULT_PORTS or not host or any(c.isspace() for c in endpoint_url):
        raise ConfigurationError("the endpoint URL is not an HTTP URL with a host", hint=hint)
    if "@" in parts.netloc or "?" in endpoint_url or "#" in endpoint_url:
        raise ConfigurationError("the endpoint URL has a user, a query or a fragment", hint=hint)
    if ":" in host:
        host = f"[{host}]"
    if port is not None and port != _DEFAULT_PORTS[parts.scheme]:
        host = f"{host}:{port}"
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"


def _aws_domain(endpoint_url: str) -> str | None:
    host = urlsplit(endpoint_url).hostname or ""
    return next((d for d in _AWS_DOMAINS if host == d or host.endswith("." + d)), None)
