"""How the way to the database is protected: by default the server must prove who it is.

libpq's own default, ``sslmode=prefer``, encrypts if the server offers it, goes on in clear text
if it does not, and checks no certificate. Here a server that is not on this machine is checked
in full unless the operator says otherwise, and what he says can be told (:func:`weakness`).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from auditstore.destinations import is_loopback

FULL: Final = "verify-full"
_WEAKNESSES: Final = {
    "disable": "is not encrypted",
    "allow": "may go unencrypted, and the server's certificate is not checked",
    "prefer": "may go unencrypted, and the server's certificate is not checked",
    "require": "is encrypted, and the server's certificate is not checked",
    "verify-ca": "is encrypted, and any name in the server's certificate is taken",
}
# Where distributions keep their authorities. libpq's own `sslrootcert=system` looks where its
# OpenSSL was built, which in a wheel is no place of this machine.
_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def protected(url: URL, environment: Mapping[str, str] | None = None) -> URL:
    """``url`` with full checks where it leads off this machine and nothing else is asked for.

    A mode in the URL or in PGSSLMODE is kept. Full checks without an authority of the operator's
    own (``sslrootcert``, PGSSLROOTCERT, ``~/.postgresql/root.crt``) use the system's.
    """
    env = os.environ if environment is None else environment
    if not _leads_away(url, env):
        return url
    mode = _stated(url, env, "sslmode") or FULL
    added = {"sslmode": mode}
    own = Path(env.get("HOME") or "/").joinpath(".postgresql", "root.crt")
    if mode == FULL and not _stated(url, env, "sslrootcert") and not own.exists():
        added["sslrootcert"] = _system_authorities()
    return url.update_query_dict(added)


def weakness(url: URL, environment: Mapping[str, str] | None = None) -> str | None:
    """What a connection to ``url`` leaves unprotected, in a sentence; ``None`` if nothing."""
    env = os.environ if environment is None else environment
    if not _leads_away(url, env):
        return None
    mode = _stated(url, env, "sslmode") or FULL
    lack = _WEAKNESSES.get(mode)
    return lack and f"the connection to the database {lack}, as sslmode={mode} asks for"


def _leads_away(url: URL, env: Mapping[str, str]) -> bool:
    hosts = list(_hosts(url, env))
    if not hosts and (url.query.get("service") or env.get("PGSERVICE")):
        return True  # its host stands in a file of libpq's
    return any(not host.startswith(("/", "@")) and not is_loopback(host) for host in hosts)


def _hosts(url: URL, env: Mapping[str, str]) -> Iterator[str]:
    """Every host that libpq may try, without ports; none for its default socket."""
    named = [url.host] if url.host else _values(url, "host") or [env.get("PGHOST") or ""]
    addresses = _values(url, "hostaddr") or [env.get("PGHOSTADDR") or ""]
    for value in (*named, *addresses):
        for host in value.split(","):
            bare, _, port = host.rpartition(":")
            if host:
                # SQLAlchemy's form for several hosts carries ports; an IPv6 address has colons.
                yield bare if port.isdigit() and ":" not in bare.strip("[]") and bare else host


def _values(url: URL, name: str) -> list[str]:
    value = url.query.get(name) or ()
    return [value] if isinstance(value, str) else list(value)


def _stated(url: URL, env: Mapping[str, str], name: str) -> str | None:
    values = _values(url, name)
    return values[-1] if values else env.get(f"PG{name.upper()}") or None


def _system_authorities() -> str:
    here = ssl.get_default_verify_paths().cafile  # SSL_CERT_FILE, or where this Python looks
    return next((path for path in (here, *_BUNDLES) if path and Path(path).is_file()), "system")
