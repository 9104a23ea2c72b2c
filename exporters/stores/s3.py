"""Objects in an S3 bucket, Amazon's or another server's.

Amazon and most others refuse a second write with ``If-None-Match: *``; some ignore the
header or refuse the request. On other servers than Amazon's the first write of a process
to a bucket therefore writes ``auditstore_verification_conditional.txt`` under the prefix,
twice. Where the second is not refused, writing is *look, then write*: two writers in the
same instant may then both write, which is harmless here, since files of one key have one
content, but it is not atomic.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    CredentialRetrievalError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from auditstore.destinations import Destination
from auditstore.errors import AuditStoreError, StoreRefused, StoreUnavailable
from auditstore.objects import (
    VERIFICATION_PREFIX,
    Inspection,
    NewObject,
    ObjectInfo,
    PutResult,
)
from exporters.stores.redaction import redacted
from exporters.stores.s3_errors import s3_error
from exporters.stores.s3_inspection import inspect_bucket
from exporters.stores.s3_session import s3_client
from exporters.stores.s3_shared import shared

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CHUNK = 1024 * 1024
_DRIVER_ERRORS = (BotoCoreError, ClientError, ResponseParserError)
_PASSING = (
    BotoConnectionError,
    ConnectionClosedError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    ResponseParserError,
)
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)

# Whether (endpoint, bucket) keeps create-only writes; found out once a process. A lock for
# each, so that a server that hangs holds up no other.
_CONDITIONAL: dict[tuple[str, str], bool] = {}
_CONDITIONAL_LOCKS: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)


def open_s3(
    destination: Destination,
    *,
    region: str | None,
    secret: Mapping[str, str] | None,
    options: Mapping[str, str],
) -> S3Store:
    """The store of an S3 destination, with the limits that the exporter uses."""

    def make() -> S3Client:
        return s3_client(destination, region=region, secret=secret, options=options)

    if secret and "access_key_id" in secret:
        # All that makes one client differ from another.
        key = (destination.endpoint_url, region, *_items(secret), "", *_items(options))
        client, release = shared(key, make)
    else:
        # What the environment says may have changed; a stream that is resumed looks again.
        client = make()
        release = client.close
    # A role's name is no secret, and a refusal is clearer with it.
    hidden = tuple(value for name, value in (secret or {}).items() if name != "role_arn")
    return S3Store(client, destination, options=options, secrets=hidden, release=release)


def _items(named: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(named.items())


class S3Store:
    """One bucket; ``page_size`` is how many objects one listing request asks for."""

    def __init__(
        self,
        client: S3Client,
        destination: Destination,
        *,
        options: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = (),
        page_size: int = 1000,
        release: Callable[[], None] | None = None,
    ) -> None:
        self._client = client
        self._release = release or client.close
        self._destination = destination
        self._secrets = secrets
        self._page_size = page_size
        options = options or {}
        owner = options.get("expected_bucket_owner")
        self._common: dict[str, Any] = {"Bucket": destination.bucket}
        if owner:
            self._common["ExpectedBucketOwner"] = owner
        names = {
            "ServerSideEncryption": "sse",
            "SSEKMSKeyId": "kms_key_id",
            "StorageClass": "storage_class",
        }
        self._writing = {name: options[key] for name, key in names.items() if key in options}

    def put_if_absent(self, new: NewObject) -> PutResult:
        """Create the object in one request that carries its SHA-256 for the server to check.

        After a connection that broke when the server had stored the object already, the
        retry finds the key taken: ``created`` is false and the caller compares contents.
        """
        try:
            if self._keeps_conditions():
                try:
                    return self._put(new, conditional=True)
                except ClientError as error:
                    if not self._was_replaced(error):
                        raise
            if self.head(new.key) is not None:
                return PutResult(created=False)
            return self._put(new, conditional=False)
        except _DRIVER_ERRORS as error:
            raise self._translate(error) from error

    def head(self, key: str) -> ObjectInfo | None:
        """Describe one object; a refusal is asked for its reason, which HEAD cannot give."""
        try:
            answer = self._client.head_object(**self._common, Key=key)
        except ClientError as error:
            if _status(error) not in {301, 400, 403, 404}:
                raise self._translate(error) from error
            return self._head_by_get(key)
        except _DRIVER_ERRORS as error:
            raise self._translate(error) from error
        return _info(key, answer["ContentLength"], answer)

    def read(self, key: str) -> Iterator[bytes] | None:
        """The stored bytes in chunks of 1 MiB."""
        try:
            body = self._client.get_object(**self._common, Key=key)["Body"]
        except _DRIVER_ERRORS as error:
            if _code(error) == "NoSuchKey":
                return None
            raise self._translate(error) from error
        chunks = self._chunks(body)
        next(chunks)  # from here on, dropping the iterator closes the connection
        return chunks

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Objects below ``prefix``; the server starts after ``start_after``."""
        more: dict[str, Any] = {"StartAfter": start_after} if start_after else {}
        pages = self._client.get_paginator("list_objects_v2").paginate(
            **self._common,
            Prefix=prefix,
            PaginationConfig={"PageSize": self._page_size},
            **more,
        )
        try:
            for page in pages:
                for item in page.get("Contents", ()):
                    key = item["Key"]
                    # Once more here: not every server knows StartAfter.
                    if start_after is None or key.encode() > start_after.encode():
                        etag = item.get("ETag", "").strip('"') or None
                        yield ObjectInfo(key=key, size=item["Size"], etag=etag)
        except _DRIVER_ERRORS as error:
            raise self._translate(error) from error

    def inspect(self, now: Callable[[], datetime]) -> Inspection:
        """Versions, Object Lock, and the server's clock."""
        try:
            return inspect_bucket(self._client, self._common, now)
        except _DRIVER_ERRORS as error:
            raise self._translate(error) from error

    def close(self) -> None:
        """Close the client's connections, unless others use it; calling it again does nothing."""
        release, self._release = self._release, lambda: None
        release()

    # --- writing ----------------------------------------------------------------

    def _put(self, new: NewObject, *, conditional: bool) -> PutResult:
        request: dict[str, Any] = {
            **self._common,
            **self._writing,
            "Key": new.key,
            "Body": new.body,
            "ChecksumSHA256": base64.b64encode(new.sha256).decode("ascii"),
            "ContentType": new.content_type,
            "Metadata": dict(new.metadata),
        }
        if new.content_encoding is not None:
            request["ContentEncoding"] = new.content_encoding
        if conditional:
            request["IfNoneMatch"] = "*"
        try:
            answer = self._client.put_object(**request)
        except ClientError as error:
            if conditional and _status(error) == 412:
                return PutResult(created=False)
            raise
        return PutResult(
            created=True,
            info=_info(new.key, len(new.body), {**answer, "Metadata": dict(new.metadata)}),
        )

    def _keeps_conditions(self) -> bool:
        """Whether the server honours create-only writes: asked once, one thread at a time."""
        # The environment or the profile may name another server than the stream does.
        server = replace(self._destination, endpoint_url=self._client.meta.endpoint_url)
        if server.is_aws:
            return True
        place = (server.endpoint_url or "", server.bucket)
        with _CONDITIONAL_LOCKS[place]:
            if place not in _CONDITIONAL:
                _CONDITIONAL[place] = self._probe_conditions()
            return _CONDITIONAL[place]

    def _was_replaced(self, error: ClientError) -> bool:
        """Whether a server that kept create-only writes now refuses them: it is asked anew."""
        if self._destination.is_aws or not _is_not_implemented(error):
            return False
        place = (self._destination.endpoint_url or "", self._destination.bucket)
        with _CONDITIONAL_LOCKS[place]:
            _CONDITIONAL.pop(place, None)
        return not self._keeps_conditions()

    def _probe_conditions(self) -> bool:
        folder = f"{self._destination.prefix}/" if self._destination.prefix else ""
        body = b"auditstore wrote this to learn whether this server keeps create-only writes.\n"
        probe = NewObject(
            key=f"{folder}{VERIFICATION_PREFIX}_conditional.txt",
            body=body,
            sha256=hashlib.sha256(body).digest(),
            content_type="text/plain; charset=utf-8",
        )
        try:
            first = self._put(probe, conditional=True)
            return not first.created or not self._put(probe, conditional=True).created
        except ClientError as error:
            if _is_not_implemented(error):
                return False
            raise

    # --- reading ----------------------------------------------------------------

    def _head_by_get(self, key: str) -> ObjectInfo | None:
        """HEAD answers without a body: a missing bucket looks like a missing object."""
        try:
            answer = self._client.get_object(**self._common, Key=key, Range="bytes=0-0")
        except _DRIVER_ERRORS as error:
            if _code(error) == "NoSuchKey":
                return None
            raise self._translate(error) from error
        answer["Body"].close()
        size = int(answer["ContentRange"].rpartition("/")[2])
        return _info(key, size, answer)

    def _chunks(self, body: Any) -> Iterator[bytes]:
        try:
            yield b""
            while chunk := body.read(_CHUNK):
                yield chunk
        except _DRIVER_ERRORS as error:
            raise self._translate(error) from error
        finally:
            body.close()

    # --- errors -----------------------------------------------------------------

    def _translate(self, error: BaseException) -> AuditStoreError:
        place = self._destination.url
        if isinstance(error, ClientError):
            return s3_error(
                status=_status(error),
                code=_code(error),
                server_message=redacted(
                    error.response.get("Error", {}).get("Message"), self._secrets
                ),
                operation=error.operation_name,
                place=place,
            )
        name = type(error).__name__
        if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            return StoreRefused(
                f"{place}: the server's certificate is not trusted",
                hint="Correct the endpoint URL, or set AWS_CA_BUNDLE to the server's own CA.",
                code="CertificateNotTrusted",
            )
        if isinstance(error, _PASSING):
            server = self._destination.endpoint_url or "Amazon S3"
            return StoreUnavailable(
                f"{place}: {server} cannot be reached or broke off ({name})",
                hint="This passes; it is tried again by itself. If it lasts, check the "
                "endpoint URL, DNS, proxy and firewall.",
            )
        if isinstance(error, _NO_CREDENTIALS):
            return StoreRefused(
                f"{place}: no usable credentials were found ({name})",
                hint="Give the stream a credential, or set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, a profile, or an instance role.",
                code="NoCredentials",
            )
        return StoreRefused(
            f"{place}: the request cannot be made ({name}): {redacted(str(error), self._secrets)}",
            hint="Check the stream's region, endpoint URL, options and credential.",
            code=name,
        )


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _is_not_implemented(error: ClientError) -> bool:
    return _status(error) == 501 or _code(error) == "NotImplemented"


def _code(error: BaseException) -> str:
    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code") or "")


def _info(key: str, size: int, answer: Mapping[str, Any]) -> ObjectInfo:
    version = answer.get("VersionId")
    return ObjectInfo(
        key=key,
        size=size,
        etag=answer.get("ETag", "").strip('"') or None,
        # "null" is S3's word for a bucket that keeps no versions.
        version_id=None if version == "null" else version,
        metadata={k.lower(): v for k, v in answer.get("Metadata", {}).items()},
    )
