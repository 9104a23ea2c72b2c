"""What each answer of an S3 server means for the stream, in an operator's words.

Codes are those of Amazon's list of S3 error responses; other servers use the same.
"""

from __future__ import annotations

from auditstore.errors import AuditStoreError, StoreRefused, StoreUnavailable

# 4xx and 3xx answers that pass by themselves; every 5xx but 501 does, too.
_PASSING = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "KMS.DependencyTimeoutException",
        "KMS.KMSInternalException",
        "KMS.KeyUnavailableException",
        "KMS.ThrottlingException",
        "OperationAborted",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "TemporaryRedirect",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
_PASSING_STATUS = frozenset({307, 408, 425, 429})

_CREDENTIAL = "Give the stream a credential that works: `auditstore credential rotate`."
_RENEW = (
    "Session tokens run out: rotate the credential, or use a role or keys without a token, "
    "which renew themselves or do not end."
)
_RIGHTS = (
    "Allow the credential s3:PutObject on the prefix, and for comparing and reconciling "
    "s3:GetObject on it and s3:ListBucket on the bucket; `auditstore doctor` prints the exact "
    "policy. Look at the bucket's policy too."
)
_REGION = "Set the stream's region to the bucket's own, and the endpoint URL if one is set."
_SUPPORT = "The account's owner must settle this with the provider."
_KMS = (
    "Allow the credential kms:GenerateDataKey and kms:Decrypt on the bucket's key, "
    "and see that the key exists, is enabled, and lies in the bucket's region."
)

# code -> (what happened, what to do)
_REFUSALS: dict[str, tuple[str, str]] = {
    "AccessDenied": (
        "the credential may not do this here",
        _RIGHTS,
    ),
    "AccountProblem": ("the account has a problem", _SUPPORT),
    "AllAccessDisabled": ("all access to the bucket is disabled", _SUPPORT),
    "AuthorizationHeaderMalformed": ("the request was signed for another region", _REGION),
    "ExpiredToken": ("the session token has run out", _RENEW),
    "ExpiredTokenException": ("the session token has run out", _RENEW),
    "IllegalLocationConstraintException": ("the bucket lies in another region", _REGION),
    "InvalidAccessKeyId": (
        "the access key is not known: deleted, disabled, mistyped, or another provider's",
        _CREDENTIAL,
    ),
    "InvalidBucketName": ("the bucket's name is not valid", "Correct the stream's URL."),
    "InvalidBucketState": ("the bucket is in no state to be written", _SUPPORT),
    "InvalidClientTokenId": ("the access key is not known", _CREDENTIAL),
    "InvalidObjectState": (
        "the object lies in an archive class and cannot be read",
        "Restore the object, or leave it out of the comparison.",
    ),
    "InvalidPayer": ("the bucket's payer has disabled access", _SUPPORT),
    "InvalidSecurity": ("the credential is not valid", _CREDENTIAL),
    "InvalidStorageClass": (
        "the storage class is not known there",
        "Correct the stream's option storage_class.",
    ),
    "InvalidToken": ("the session token is not valid", _RENEW),
    "MissingSecurityHeader": (
        "a header that the bucket wants is missing",
        "Look at what the bucket's policy demands: encryption (option sse) is usual.",
    ),
    "NoSuchBucket": (
        "the bucket is not there",
        "Create the bucket, or correct the stream's URL, region or endpoint URL.",
    ),
    "NotImplemented": (
        "the server does not have a feature that was asked for",
        "Remove options that the server does not know (sse, storage_class, checksums).",
    ),
    "NotSignedUp": ("the account is not signed up for S3", _SUPPORT),
    "PermanentRedirect": ("the bucket lies in another region", _REGION),
    "RequestExpired": ("the request was too old", "Set this machine's clock."),
    "RequestTimeTooSkewed": (
        "this machine's clock and the server's are too far apart",
        "Set this machine's clock, and keep it set (NTP).",
    ),
    "SignatureDoesNotMatch": (
        "the secret access key does not belong to the access key",
        "Check the secret for a missing or added character. " + _CREDENTIAL,
    ),
    "TokenRefreshRequired": ("the session token must be renewed", _RENEW),
    "UnauthorizedAccess": ("the account may not be used in this region", _REGION),
}
# An answer without a body (to HEAD) has only its status.
_BY_STATUS = {
    301: "PermanentRedirect",
    401: "AccessDenied",
    403: "AccessDenied",
    501: "NotImplemented",
}


def s3_error(
    *, status: int, code: str, server_message: str, operation: str, place: str
) -> AuditStoreError:
    """The error for an answer of the server.

    ``place`` is the bucket's URL; ``server_message`` must hold no secret any more.
    """
    if code in {"", str(status)}:
        code = _BY_STATUS.get(status, code)
    if code in _PASSING or status in _PASSING_STATUS or (status >= 500 and status != 501):
        return StoreUnavailable(
            f"{place} cannot take requests just now: {code or status} ({operation})",
            hint="This passes; it is tried again by itself.",
        )
    what, hint = _refusal(code, status)
    detail = f" The server says: {server_message}" if server_message else ""
    if operation == "AssumeRole":
        place = "the role to assume"
        if code == "AccessDenied":
            hint = "See that the role's trust policy names this credential and the external id."
    return StoreRefused(f"{place}: {what} ({code or status}).{detail}", hint=hint, code=code)


def _refusal(code: str, status: int) -> tuple[str, str]:
    if code.startswith("KMS."):
        return "the encryption key cannot be used", _KMS
    if code in _REFUSALS:
        return _REFUSALS[code]
    if 300 <= status < 400:
        return _REFUSALS["PermanentRedirect"]
    return (
        f"the server refuses with HTTP status {status}",
        "Look the code up in the server's documentation; `auditstore stream test` asks again.",
    )
