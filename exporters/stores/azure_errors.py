"""What each answer of Azure Blob Storage means for the stream, in an operator's words.

Codes are those of Microsoft's lists of common and of blob service error codes.
"""

from __future__ import annotations

from auditstore.errors import AuditStoreError, StoreRefused, StoreUnavailable

#: Answers to a create-only write that mean that the name is taken. A blob under a policy or
#: a legal hold, and one that the credential may create but not overwrite, is there already.
TAKEN = frozenset(
    {
        "BlobAlreadyExists",
        "BlobImmutableDueToLegalHold",
        "BlobImmutableDueToPolicy",
        "ConditionNotMet",
        "TargetConditionNotMet",
        "UnauthorizedBlobOverwrite",
    }
)

# 4xx answers that pass by themselves; every 5xx but 501 does, too.
_PASSING = frozenset(
    {
        "AccountBeingCreated",
        "ContainerBeingDeleted",
        "InternalError",
        "Md5Mismatch",
        "OperationTimedOut",
        "ServerBusy",
    }
)
_PASSING_STATUS = frozenset({408, 425, 429})

_CREDENTIAL = "Give the stream a credential that works: `auditstore credential rotate`."
_RIGHTS = (
    "Allow the identity or SAS to add blobs in the container, and for comparing and reconciling "
    "to read and list them (SAS permissions c, r, l); `auditstore doctor` prints the exact role."
)
_SUPPORT = "The account's owner must settle this in the Azure portal."

# code -> (what happened, what to do)
_REFUSALS: dict[str, tuple[str, str]] = {
    "AccountIsDisabled": ("the storage account is disabled", _SUPPORT),
    "AuthenticationFailed": (
        "the credential is wrong, has run out, or this machine's clock is off",
        "Check the account key or SAS and its dates, and this machine's clock. " + _CREDENTIAL,
    ),
    "AuthorizationFailure": (
        "the credential or this machine's network may not do this here",
        _RIGHTS + " Look at the account's firewall and network rules too.",
    ),
    "AuthorizationPermissionMismatch": ("the credential may not do this here", _RIGHTS),
    "AuthorizationProtocolMismatch": (
        "the SAS does not allow this protocol",
        "Use https in the endpoint URL, or a SAS that allows http.",
    ),
    "AuthorizationResourceTypeMismatch": (
        "the SAS does not cover containers and blobs",
        "Make a SAS for the service's containers and objects.",
    ),
    "AuthorizationServiceMismatch": (
        "the SAS does not cover the blob service",
        "Make a SAS for the blob service.",
    ),
    "AuthorizationSourceIPMismatch": (
        "the SAS does not allow this machine's address",
        "Make a SAS that allows it, or send from an address that it names.",
    ),
    "ContainerDisabled": ("the container is disabled", _SUPPORT),
    "ContainerNotFound": (
        "the container is not there",
        "Create the container, or correct the stream's URL or endpoint URL.",
    ),
    "InsufficientAccountPermissions": ("the account may not do this", _SUPPORT),
    "InvalidAuthenticationInfo": (
        "the credential is malformed, has run out, or is for another service",
        _CREDENTIAL,
    ),
    "KeyBasedAuthenticationNotPermitted": (
        "the account does not allow account keys",
        "Use a managed identity, or allow shared key access on the account.",
    ),
    "KeyVaultEncryptionKeyNotFound": (
        "the account's encryption key is not there",
        "Restore the key in Key Vault, or give the account another one.",
    ),
    "NoAuthenticationInformation": ("no credential was sent", _CREDENTIAL),
    "ResourceNotFound": (
        "the container or account is not there",
        "Create the container, or correct the stream's URL or endpoint URL.",
    ),
}
# An answer without Azure's own code, as from a proxy or a firewall, has only its status.
_BY_STATUS = {401: "InvalidAuthenticationInfo", 403: "AuthorizationFailure"}


def azure_error(*, status: int, code: str, server_message: str, place: str) -> AuditStoreError:
    """The error for an answer of the server; ``server_message`` must hold no secret."""
    code = code or _BY_STATUS.get(status, "")
    # Azure names every conflict: one without a name was cut short on its way.
    is_cut = status == 409 and not code
    is_servers = status >= 500 and status != 501
    if code in _PASSING or status in _PASSING_STATUS or is_servers or is_cut:
        return StoreUnavailable(
            f"{place} cannot take requests just now: {code or status}",
            hint="This passes; it is tried again by itself.",
        )
    if code.startswith("KeyVault") and code not in _REFUSALS:
        what, hint = "the account's encryption key cannot be used", _SUPPORT
    else:
        what, hint = _REFUSALS.get(
            code,
            (
                f"the server refuses with HTTP status {status}",
                "Look the code up in Azure's documentation; `auditstore stream test` asks again.",
            ),
        )
    detail = f" The server says: {server_message}" if server_message else ""
    return StoreRefused(
        f"{place}: {what} ({code or status}).{detail}", hint=hint, code=code or f"HTTP{status}"
    )
