"""One module per object store, each behind ``auditstore.objects.ObjectStore``.

The modules never import each other, and each cloud's SDK is imported only in its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from auditstore.destinations import INSECURE_HTTP, Destination
from auditstore.errors import ConfigurationError
from auditstore.objects import ObjectStore

#: What ``options`` may hold, by scheme, with the values that a closed choice allows.
STORE_OPTIONS: Mapping[str, Mapping[str, frozenset[str] | None]] = {
    "s3": {
        "sse": frozenset({"AES256", "aws:kms", "aws:kms:dsse"}),
        "kms_key_id": None,
        "storage_class": None,
        "expected_bucket_owner": None,
        "checksums": frozenset({"when_required", "when_supported"}),
        "addressing": frozenset({"auto", "path", "virtual"}),
        INSECURE_HTTP: frozenset({"yes"}),
    },
    "azure": {INSECURE_HTTP: frozenset({"yes"})},
    "file": {},
}


def open_store(
    destination: Destination,
    *,
    region: str | None = None,
    secret: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> ObjectStore:
    """The store that ``destination`` names; nothing is sent until it is used.

    ``secret`` is the decrypted explicit credential; ``None`` leaves finding one to the
    cloud's own SDK. ``options`` are those of :data:`STORE_OPTIONS`. Raises
    :class:`ConfigurationError` for what the store does not know.
    """
    options = options or {}
    check_options(destination.scheme, options)
    if destination.scheme == "s3":
        from exporters.stores.s3 import open_s3  # noqa: PLC0415 - boto3 only where S3 is used

        return open_s3(destination, region=region, secret=secret, options=options)
    if region is not None:
        raise ConfigurationError(
            f"{destination.scheme} destinations have no region", hint="Leave the region out."
        )
    if destination.scheme == "azure":
        from exporters.stores.azure import open_azure  # noqa: PLC0415 - as above, for azure

        return open_azure(destination, secret=secret, options=options)
    from exporters.stores.folder import FolderStore  # noqa: PLC0415 - as above

    if secret:
        raise ConfigurationError(
            "a folder needs no credential", hint="Remove the credential from the stream."
        )
    return FolderStore(destination.bucket)


def check_options(scheme: str, options: Mapping[str, str]) -> None:
    """Refuse options that the scheme's store does not know, naming those that it does."""
    allowed = STORE_OPTIONS[scheme]
    names = ", ".join(sorted(allowed)) or "none"
    for name, value in options.items():
        if name not in allowed:
            raise ConfigurationError(
                f"{scheme} destinations have no option {name!r}", hint=f"Allowed: {names}."
            )
        choices = allowed[name]
        if choices is not None and value not in choices:
            raise ConfigurationError(
                f"the option {name} cannot be {value!r}",
                hint=f"Choose one of: {', '.join(sorted(choices))}.",
            )
        if not value:
            raise ConfigurationError(
                f"the option {name} is empty", hint="Give it a value or leave it out."
            )
    if "kms_key_id" in options and not options.get("sse", "").startswith("aws:kms"):
        raise ConfigurationError(
            "kms_key_id needs sse to be aws:kms or aws:kms:dsse", hint="Set sse=aws:kms too."
        )
