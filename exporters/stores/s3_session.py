"""Clients for S3 servers: credentials that renew themselves, time limits, few retries."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import BotoCoreError

from auditstore.destinations import Destination, check_encryption
from auditstore.errors import ConfigurationError
from exporters.stores.authorities import authorities
from exporters.stores.s3_shared import loader

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
ATTEMPTS = 3
_CONFLICT_DELAY_S = 0.2
_SECRET_NAMES = frozenset(
    {"access_key_id", "secret_access_key", "session_token", "role_arn", "external_id"}
)


def s3_client(
    destination: Destination,
    *,
    region: str | None,
    secret: Mapping[str, str] | None,
    options: Mapping[str, str],
    attempts: int | None = None,
    read_timeout: float | None = None,
) -> S3Client:
    """A client that may be shared between threads; nothing is sent yet.

    ``attempts`` counts the first one; the exporter retries for ever on top of it. Where these
    limits are not given, the module's are taken as they are now.
    """
    attempts = ATTEMPTS if attempts is None else attempts
    _keep_secrets_out_of_logs()
    # Any: the stubs want literals; the choices are checked where options are.
    checksums: Any = options.get("checksums", "when_required")
    addressing: Any = options.get("addressing", "path" if destination.endpoint_url else "auto")
    try:
        chain = _session(region, dict(secret or {}), options)
        session = boto3.Session(botocore_session=chain, region_name=region)
        client = session.client(
            "s3",
            endpoint_url=destination.endpoint_url,
            verify=_authorities(chain),
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S if read_timeout is None else read_timeout,
                retries={"mode": "standard", "total_max_attempts": attempts},
                # As many threads as the exporter may have at work on the streams that share it.
                max_pool_connections=64,
                tcp_keepalive=True,
                request_checksum_calculation=checksums,
                response_checksum_validation=checksums,
                s3={"addressing_style": addressing},
                user_agent_extra="auditstore",
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(
            f"the S3 client cannot be set up: {type(error).__name__}",
            hint="Check region, endpoint URL, and the AWS profile and files in use.",
        ) from error
    # Also one that the environment or the profile names.
    check_encryption(client.meta.endpoint_url, options)
    client.meta.events.register(
        "needs-retry.s3.PutObject",
        partial(_retry_conflict, limit=attempts),  # type: ignore[arg-type]  # stubs: no answers
    )
    return client


def _authorities(session: botocore.session.Session) -> str | bool:
    return authorities(
        session.get_config_variable("ca_bundle"), os.environ.get("REQUESTS_CA_BUNDLE")
    )


def _session(
    region: str | None, secret: dict[str, str], options: Mapping[str, str]
) -> botocore.session.Session:
    """A session on explicit keys, an assumed role, or the environment's own chain."""
    _check_secret(secret)
    session = _bare_session()
    if "access_key_id" in secret:
        session.set_credentials(
            secret["access_key_id"], secret["secret_access_key"], secret.get("session_token")
        )
    if "role_arn" in secret:
        source = session.get_credentials()
        if source is None:
            raise ConfigurationError(
                "there are no credentials to assume the role with",
                hint="Add access keys to the credential, or give the environment some.",
            )
        extra = {"RoleSessionName": "auditstore"}
        if "external_id" in secret:
            extra["ExternalId"] = secret["external_id"]
        sts_region = region or session.get_config_variable("region") or "us-east-1"
        limits = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        )

        def sts_client(service: str, **given: Any) -> Any:
            client = session.create_client(
                service,
                region_name=sts_region,
                config=limits,
                verify=_authorities(session),
                **given,
            )
            check_encryption(client.meta.endpoint_url, options)
            return client

        fetcher = AssumeRoleCredentialFetcher(
            sts_client,
            source,
            secret["role_arn"],
            extra_args=extra,
        )
        assuming = _bare_session()
        assuming.register_component(
            "credential_provider", CredentialResolver([_AssumedRole(fetcher)])
        )
        return assuming
    return session


def _bare_session() -> botocore.session.Session:
    session = botocore.session.Session()
    session.register_component("data_loader", loader(session.get_config_variable("data_path")))
    return session


class _AssumedRole(CredentialProvider):
    """Credentials of a role that botocore renews before they end."""

    METHOD = "auditstore-assumed-role"

    def __init__(self, fetcher: AssumeRoleCredentialFetcher) -> None:
        super().__init__()
        self._fetcher = fetcher

    def load(self) -> DeferredRefreshableCredentials:
        return DeferredRefreshableCredentials(
            refresh_using=self._fetcher.fetch_credentials, method=self.METHOD
        )


def _check_secret(secret: Mapping[str, str]) -> None:
    unknown = sorted(set(secret) - _SECRET_NAMES)
    if unknown:
        raise ConfigurationError(
            f"an S3 credential has no field {unknown[0]!r}",
            hint=f"Fields: {', '.join(sorted(_SECRET_NAMES))}.",
        )
    if ("access_key_id" in secret) != ("secret_access_key" in secret) or (
        "session_token" in secret and "access_key_id" not in secret
    ):
        raise ConfigurationError(
            "an S3 credential needs access_key_id and secret_access_key together",
            hint="Give both, or neither to use the environment's own chain.",
        )
    if "external_id" in secret and "role_arn" not in secret:
        raise ConfigurationError(
            "external_id is only for an assumed role", hint="Give role_arn too."
        )


def _retry_conflict(
    *, response: tuple[Any, dict[str, Any]] | None, attempts: int, limit: int, **_: object
) -> float | None:
    """Try again when another create-only write to the key was going on (HTTP 409)."""
    if response is None or attempts >= limit:
        return None
    code = response[1].get("Error", {}).get("Code")
    return _CONFLICT_DELAY_S * attempts if code == "ConditionalRequestConflict" else None


def _keep_secrets_out_of_logs() -> None:
    """At DEBUG botocore logs whole requests, session tokens included."""
    logger = logging.getLogger("botocore")
    if logger.level < logging.INFO:
        logger.setLevel(logging.INFO)
