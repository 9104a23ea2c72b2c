"""The stores' codes, by what an operator has to look at: the place, the secret, or the rights."""

from __future__ import annotations

from typing import Final

#: The bucket, container or folder is not there, or elsewhere.
_PLACE: Final = frozenset({
    "AuthorizationHeaderMalformed", "ContainerNotFound", "IllegalLocationConstraintException",
    "InvalidBucketName", "NoSuchBucket", "NoSuchFolder", "PermanentRedirect", "ResourceNotFound",
})  # fmt: skip
#: The store does not know who asks.
_SECRET: Final = frozenset({
    "AuthenticationFailed", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId",
    "InvalidAuthenticationInfo", "InvalidClientTokenId", "InvalidSecurity", "InvalidToken",
    "NoAuthenticationInformation", "NoCredentials", "RequestExpired", "RequestTimeTooSkewed",
    "SignatureDoesNotMatch", "TokenRefreshRequired",
})  # fmt: skip
#: It knows, and says no.
_RIGHTS: Final = frozenset({
    "AccessDenied", "AccountIsDisabled", "AllAccessDisabled", "EACCES", "EPERM", "EROFS",
    "InsufficientAccountPermissions", "KeyBasedAuthenticationNotPermitted", "UnauthorizedAccess",
})  # fmt: skip


def is_place(code: str) -> bool:
    """Whether the place itself is what is wrong."""
    return code in _PLACE


def is_secret(code: str) -> bool:
    """Whether the secret is what is wrong."""
    return code in _SECRET


def is_denial(code: str) -> bool:
    """Whether people would call it `access denied`."""
    denied = code in _RIGHTS or code.startswith(("Authorization", "KMS.", "KeyVault"))
    return is_secret(code) or (denied and not is_place(code))
