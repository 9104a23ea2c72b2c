"""The command line on a fresh database."""

from __future__ import annotations

import pytest
from support.commands import CommandLine

from auditstore.vault import new_key


@pytest.fixture
def cli(database_url: str) -> CommandLine:
    """The command line with a fresh, migrated database and one key for secrets."""
    return CommandLine(
        {"AUDITSTORE_DATABASE_URL": database_url, "AUDITSTORE_SECRET_KEYS": new_key()}
    )
