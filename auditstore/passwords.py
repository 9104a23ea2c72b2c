"""Passwords, of which only Argon2id hashes are kept (RFC 9106, by argon2-cffi's defaults)."""

from __future__ import annotations

from functools import cache
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from auditstore.errors import ConfigurationError

#: Length is what makes a password hard to guess (NIST SP 800-63B); the upper bound is for the
#: hash's cost alone.
SHORTEST: Final = 12
LONGEST: Final = 1024

_hasher: Final = PasswordHasher()


def hashed(password: str) -> str:
    """The hash to keep; ConfigurationError for a password that nobody should have."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ConfigurationError(
            f"the password has {len(password)} characters",
            hint=f"Choose one of {SHORTEST} characters or more; several words are good.",
        )
    return _hasher.hash(password)


def matches(password: str, password_hash: str | None) -> bool:
    """Whether it is the password; takes as long where there is no hash to compare with."""
    if len(password) > LONGEST:
        return False
    try:
        _hasher.verify(password_hash or _nobodys(), password)
    except (VerificationError, InvalidHashError):
        return False
    return password_hash is not None


@cache
def _nobodys() -> str:
    return _hasher.hash("a password that nobody has")
