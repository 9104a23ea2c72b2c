"""Objects as block blobs in an Azure container.

Azure's metadata names are identifiers: our hyphens are underscores there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.storage.blob import ContainerClient, ContentSettings

from auditstore.destinations import Destination
from auditstore.errors import AuditStoreError, StoreRefused, StoreUnavailable
from auditstore.objects import Fact, Inspection, NewObject, ObjectInfo, PutResult
from exporters.stores.azure_client import container_client
from exporters.stores.azure_errors import TAKEN, azure_error
from exporters.stores.redaction import redacted
from exporters.stores.server_clock import clock_ahead

_BLOB_SERVICES = "Microsoft.Storage/storageAccounts/blobServices"
# Over answers that it does not expect the SDK trips with Python's own errors.
_SDK_ERRORS = (AzureError, AttributeError, TypeError, ValueError)


def open_azure(
    destination: Destination,
    *,
    secret: Mapping[str, str] | None,
    options: Mapping[str, str] | None = None,
) -> AzureStore:
    """The store of an Azure destination, with the limits that the exporter uses."""
    client = container_client(destination, secret=secret, options=options)
    return AzureStore(client, destination, secrets=_secret_parts(secret or {}))


class AzureStore:
    """One container; ``page_size`` is how many blobs one listing request asks for."""

    def __init__(
        self,
        client: ContainerClient,
        destination: Destination,
        *,
        secrets: tuple[str, ...] = (),
        page_size: int = 5000,
    ) -> None:
        self._client = client
        self._destination = destination
        self._secrets = secrets
        self._page_size = page_size

    def put_if_absent(self, new: NewObject) -> PutResult:
        """Create the blob in one request that carries its MD5 for the server to check."""
        try:
            answer = self._client.get_blob_client(new.key).upload_blob(
                new.body,
                overwrite=False,
                validate_content=True,
                metadata={k.replace("-", "_"): v for k, v in new.metadata.items()},
                content_settings=ContentSettings(
                    content_type=new.content_type, content_encoding=new.content_encoding
                ),
            )
        except _SDK_ERRORS as error:
            answered = _answer(error)
            if answered is not None and _code(answered) in TAKEN:
                return PutResult(created=False)
            raise self._translate(error) from answered
        info = ObjectInfo(
            key=new.key,
            size=len(new.body),
            etag=_etag(answer.get("etag")),
            version_id=answer.get("version_id"),
            metadata=dict(new.metadata),
        )
        return PutResult(created=True, info=info)

    def head(self, key: str) -> ObjectInfo | None:
        """Describe one blob with its metadata."""
        try:
            return _info(self._client.get_blob_client(key).get_blob_properties())
        except _SDK_ERRORS as error:
            answered = _answer(error)
            if answered is not None and _code(answered) == "BlobNotFound":
                return None
            raise self._translate(error) from answered

    def read(self, key: str) -> Iterator[bytes] | None:
        """The stored bytes in chunks of 4 MiB, never decompressed on the way."""
        try:
            blob = self._client.get_blob_client(key)
            chunks = blob.download_blob(decompress=False, max_concurrency=1).chunks()
        except _SDK_ERRORS as error:
            answered = _answer(error)
            if answered is not None and _code(answered) == "BlobNotFound":
                return None
            raise self._translate(error) from answered
        return self._translated(chunks)

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Blobs below ``prefix`` with their metadata; what comes before is left out here."""
        blobs = self._client.list_blobs(
            name_starts_with=prefix or None,
            include=["metadata"],
            results_per_page=self._page_size,
        )
        for blob in self._translated(blobs):
            if start_after is None or blob.name.encode() > start_after.encode():
                yield _info(blob)

    def inspect(self, now: Callable[[], datetime]) -> Inspection:
        """Immutability, and the server's clock. Whether versions are kept, only the
        subscription's own service tells.
        """
        dates: list[str | None] = []

        def keep_date(answer: Any) -> None:
            dates.append(answer.http_response.headers.get("Date"))

        protection = None
        before = now()
        try:
            protection = _protection(
                self._client.get_container_properties(raw_response_hook=keep_date)
            )
        except _SDK_ERRORS as error:
            answered = _answer(error)
            if answered is None or answered.status_code != 403:
                raise self._translate(error) from answered
        return Inspection(
            (
                Fact("versioning", None, f"{_BLOB_SERVICES}/read on the account"),
                Fact("immutability", protection, f"{_BLOB_SERVICES}/containers/read"),
            ),
            clock_ahead(dates[-1] if dates else None, before, now()),
        )

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def _translated(self, items: Any) -> Iterator[Any]:
        iterator = iter(items)
        while True:
            # Not around the yield: what a caller throws in is no error of the SDK.
            try:
                item = next(iterator)
            except StopIteration:
                return
            except _SDK_ERRORS as error:
                raise self._translate(error) from _answer(error)
            yield item

    def _translate(self, error: Exception) -> AuditStoreError:
        """The error for an answer of the server, or for none.

        Raised from the answer only: other errors of the SDK hold the URL with its SAS.
        """
        answered = _answer(error)
        return self._failure(error) if answered is None else self._refusal(answered)

    def _refusal(self, error: HttpResponseError) -> AuditStoreError:
        code = _code(error)
        return azure_error(
            status=error.status_code or 0,
            code=code,
            # Only where the code says nothing: these texts are long, and quote the request.
            server_message="" if code else redacted(error.message or "", self._secrets),
            place=self._destination.url,
        )

    def _failure(self, error: Exception) -> AuditStoreError:
        place = self._destination.url
        name = type(error).__name__
        if isinstance(error, ClientAuthenticationError):
            return StoreRefused(
                f"{place}: no usable credential was found ({name})",
                hint="Give the stream a credential whose key is whole, or the machine an "
                "identity (AZURE_CLIENT_ID and others, a managed identity).",
                code="NoCredentials",
            )
        if isinstance(error, HttpResponseError | ServiceRequestError | ServiceResponseError):
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                return StoreRefused(
                    f"{place}: the server's certificate is not trusted",
                    hint="Correct the endpoint URL, or set REQUESTS_CA_BUNDLE to its own CA.",
                    code="CertificateNotTrusted",
                )
            return StoreUnavailable(
                f"{place}: the server cannot be reached or broke off ({name})",
                hint="This passes; it is tried again by itself. If it lasts, check the "
                "endpoint URL or account name, DNS, proxy and firewall.",
            )
        return StoreRefused(
            f"{place}: the request cannot be made, or its answer not be read ({name})",
            hint="Check the stream's endpoint URL and credential.",
            code=name,
        )


def _protection(container: Any) -> str:
    found = [
        name
        for name, on in (
            ("policy", container.has_immutability_policy),
            ("legal hold", container.has_legal_hold),
            ("version-level", container.immutable_storage_with_versioning_enabled),
        )
        if on
    ]
    return ", ".join(found) or "off"


def _secret_parts(secret: Mapping[str, str]) -> tuple[str, ...]:
    """Whole values, and keys and signatures within them, as a server might repeat them."""
    values = [value for name, value in secret.items() if name != "account_url"]
    parts = [part for value in values for part in value.replace("&", ";").split(";")]
    named = (part.partition("=") for part in parts)
    hidden = {"accountkey", "sharedaccesssignature", "sig"}
    inner = [value for name, _, value in named if name.lower() in hidden]
    return (*values, *inner, *(unquote(value) for value in inner))


def _answer(error: BaseException | None) -> HttpResponseError | None:
    """The server's answer behind an error; the SDK may have tripped while reading it."""
    while error is not None:
        # A download that breaks off is an HttpResponseError, too, with a good status.
        if isinstance(error, HttpResponseError) and (error.status_code or 0) >= 300:
            return error
        error = error.__context__
    return None


def _code(error: HttpResponseError) -> str:
    code = getattr(error, "error_code", None)
    if code is None:
        code = getattr(error.response, "headers", {}).get("x-ms-error-code")
    return str(getattr(code, "value", code) or "")


def _etag(value: object) -> str | None:
    return str(value).strip('"') if value else None


def _info(blob: Any) -> ObjectInfo:
    return ObjectInfo(
        key=blob.name,
        size=blob.size,
        etag=_etag(blob.etag),
        version_id=blob.version_id,
        metadata={k.lower().replace("_", "-"): v for k, v in (blob.metadata or {}).items()},
    )
