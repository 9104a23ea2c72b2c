"""Secrets at rest: encrypted with Fernet under keys that can be rotated.

The first key encrypts, every key decrypts. Nothing here ever puts a secret or a key into a
message or a repr.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from auditstore.errors import ConfigurationError

_HOW_TO_MAKE_A_KEY = (
    "Make a key with `auditstore credential new-key`, keep it safe, and set "
    "AUDITSTORE_SECRET_KEYS to it wherever auditstore runs."
)


def new_key() -> str:
    """A fresh random key for AUDITSTORE_SECRET_KEYS."""
    return Fernet.generate_key().decode()


class Vault:
    """Encrypts and decrypts secrets. Without keys it is made all the same, and refuses both:
    streams that leave credentials to the environment need no key.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        fernets = []
        for number, key in enumerate(keys, start=1):
            try:
                fernets.append(Fernet(key))
            except ValueError:
                # From None: a chained cause could quote the key.
                raise ConfigurationError(
                    f"key number {number} in AUDITSTORE_SECRET_KEYS is malformed",
                    hint="A key is 44 characters as `auditstore credential new-key` prints it; "
                    "separate several with commas, the newest first.",
                ) from None
        self._count = len(fernets)
        self._fernet = MultiFernet(fernets) if fernets else None

    def __repr__(self) -> str:
        """How many keys there are, and nothing of them."""
        return f"<Vault with {self._count} keys>"

    def encrypt(self, secret: Mapping[str, str]) -> bytes:
        """The secret under the newest key."""
        return self._keys().encrypt(orjson.dumps(dict(secret)))

    def decrypt(self, ciphertext: bytes, *, name: str = "") -> dict[str, str]:
        """The secret again; ConfigurationError, naming the credential, if no key opens it."""
        try:
            plain = self._keys().decrypt(ciphertext)
        except InvalidToken:
            raise _unopened(name) from None
        secret: dict[str, str] = orjson.loads(plain)
        return secret

    def reencrypt(self, ciphertext: bytes, *, name: str = "") -> bytes:
        """The same secret under the newest key, whichever key it was under before."""
        try:
            return self._keys().rotate(ciphertext)
        except InvalidToken:
            raise _unopened(name) from None

    def _keys(self) -> MultiFernet:
        if self._fernet is None:
            raise ConfigurationError(
                "there is no key to keep credentials with", hint=_HOW_TO_MAKE_A_KEY
            )
        return self._fernet


def _unopened(name: str) -> ConfigurationError:
    which = f"the credential {name}" if name else "the credential"
    return ConfigurationError(
        f"no key in AUDITSTORE_SECRET_KEYS opens {which}",
        hint="Add the key that it was stored under, or store the secret anew with "
        f"`auditstore credential rotate {name or 'NAME'}`.",
    )
