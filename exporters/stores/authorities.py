"""Whom the clouds' clients trust: authorities in a file, and never nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from auditstore.errors import ConfigurationError


def authorities(*named: object) -> str | Literal[True]:
    """The first bundle that is named, or True for the client's own.

    An empty name is none: some clients take it as a wish to check nothing. A file that is not
    there is the operator's to mend, and no trouble that passes.
    """
    for name in named:
        path = name.strip() if isinstance(name, str) else ""
        if path:
            if not Path(path).exists():
                raise ConfigurationError(
                    f"the certificate authorities' file {path!r} is not there",
                    hint="Correct AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or ca_bundle "
                    "in the AWS profile, or unset it.",
                )
            return path
    return True
