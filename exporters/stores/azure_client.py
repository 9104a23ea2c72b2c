"""Clients for Azure containers: which credential, time limits, few retries, no header logs."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from azure.identity import DefaultAzureCredential
from azure.storage.blob import ContainerClient, LinearRetry

from auditstore.destinations import Destination, check_encryption
from auditstore.errors import ConfigurationError
from exporters.stores.authorities import authorities

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
ATTEMPTS = 3
#: Any file that we write is one request: staged blocks have no whole-file checksum.
SINGLE_PUT_BYTES = 256 * 1024 * 1024
_READ_BYTES = 4 * 1024 * 1024
_SECRET_FIELDS = (
    {"connection_string"},
    {"account_url", "sas_token"},
    {"account_url", "account_key"},
)


def container_client(
    destination: Destination,
    *,
    secret: Mapping[str, str] | None,
    options: Mapping[str, str] | None = None,
    attempts: int | None = None,
    read_timeout: float | None = None,
) -> ContainerClient:
    """A client that may be shared between threads; nothing is sent yet.

    ``secret`` holds ``connection_string``, or ``account_url`` with ``sas_token`` or
    ``account_key``. Without one: ``AZURE_STORAGE_CONNECTION_STRING`` if it is set, else the
    destination's endpoint URL with ``DefaultAzureCredential`` (environment, workload or
    managed identity, Azure CLI). Where the limits are not given, the module's are taken as
    they are now.
    """
    attempts = ATTEMPTS if attempts is None else attempts
    _keep_secrets_out_of_logs()
    authorities(os.environ.get("REQUESTS_CA_BUNDLE"), os.environ.get("CURL_CA_BUNDLE"))
    settings: dict[str, Any] = {
        # 0 to 2 s between attempts; the exporter's own backoff comes on top.
        "retry_policy": LinearRetry(backoff=1, retry_total=attempts - 1, random_jitter_range=1),
        "connection_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S if read_timeout is None else read_timeout,
        "max_single_put_size": SINGLE_PUT_BYTES,
        "max_single_get_size": _READ_BYTES,
        "max_chunk_get_size": _READ_BYTES,
        "logging_enable": False,
        "user_agent": "auditstore",
    }
    if secret is None:
        connection_string = os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
        fields = {"connection_string": connection_string} if connection_string else {}
    else:
        fields = dict(secret)
        if set(fields) not in _SECRET_FIELDS:
            raise ConfigurationError(
                "an Azure credential has other fields than these",
                hint="Give connection_string, or account_url with sas_token or account_key.",
            )
    try:
        client = _client(destination, fields, settings)
    except ValueError:
        # Not chained: the SDK's text may quote the connection string.
        raise ConfigurationError(
            "the Azure connection string, account URL or key cannot be read",
            hint="Copy it again from the storage account's page `Access keys`.",
        ) from None
    _check_endpoint(destination, client.primary_hostname)
    # A connection string has a protocol of its own, which the stream does not show.
    check_encryption(client.url, options or {})
    return client


def _client(
    destination: Destination, fields: Mapping[str, str], settings: dict[str, Any]
) -> ContainerClient:
    if "connection_string" in fields:
        return ContainerClient.from_connection_string(
            fields["connection_string"], destination.bucket, **settings
        )
    url = fields.get("account_url") or destination.endpoint_url
    if not url:
        raise ConfigurationError(
            "the Azure storage account is not known",
            hint="Give the stream a credential or an endpoint URL "
            "(https://<account>.blob.core.windows.net), or set AZURE_STORAGE_CONNECTION_STRING.",
        )
    credential: Any
    if "sas_token" in fields:
        credential = fields["sas_token"].lstrip("?")
    elif "account_key" in fields:
        credential = {"account_name": _account_name(url), "account_key": fields["account_key"]}
    else:
        credential = DefaultAzureCredential()
    return ContainerClient(url, destination.bucket, credential=credential, **settings)


def _account_name(account_url: str) -> str:
    """The first part of the host, or of the path where the host is an address (Azurite)."""
    parts = urlsplit(account_url)
    path = parts.path.strip("/")
    return path.split("/")[0] if path else (parts.hostname or "").split(".")[0]


def _check_endpoint(destination: Destination, host: str) -> None:
    """A credential for one account must not send a stream of another one there."""
    if destination.endpoint_url is None:
        return
    wanted = urlsplit(destination.endpoint_url)
    if f"{wanted.netloc}{wanted.path}".lower() != host.rstrip("/").lower():
        raise ConfigurationError(
            "the credential is for another storage account than the stream's endpoint URL",
            hint="Correct the endpoint URL, or use the credential of that account.",
        )


def _keep_secrets_out_of_logs() -> None:
    """The SDK logs headers at INFO, urllib3 logs URLs (with their SAS) at DEBUG.

    What azure.identity warns of, at length and at each try, is the error that we raise.
    """
    for name, level in (
        ("azure.identity", logging.ERROR),
        ("azure.core.pipeline.policies.http_logging_policy", logging.WARNING),
        ("azure.storage", logging.INFO),
        ("urllib3.connectionpool", logging.INFO),
    ):
        logger = logging.getLogger(name)
        if logger.level < level:
            logger.setLevel(level)
