"""An S3 server and, where there is one at hand, an Azure Blob server, on this machine only."""

from __future__ import annotations

import os
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from auditstore.demo import s3_server
from auditstore.demo.processes import server
from auditstore.errors import ConfigurationError

BUCKET: Final = "demo-leads"
#: moto takes any; these go through the store's own encryption all the same.
S3_SECRET: Final = {
    "access_key_id": "AKIADEMODEMODEMODEMO",
    "secret_access_key": "demo-secret-key-of-no-account",
}
REGION: Final = "us-east-1"
HOW_TO_GET_AZURITE: Final = "npm install -g azurite"

# Published by Microsoft, the same on every machine, no secret.
_AZURITE_ACCOUNT: Final = "devstoreaccount1"
_AZURITE_KEY: Final = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_BLOB_SERVICE: Final = Path("node_modules", "azurite", "dist", "src", "blob", "main.js")
# Leaves when standard input closes: with the demo, however that ends.
_WATCH: Final = """\
process.stdin.resume();
for (const event of ["end", "error"]) process.stdin.on(event, () => process.exit(0));
"""


@dataclass(frozen=True, slots=True)
class AzureServer:
    """A running blob service, with a container named :data:`BUCKET`."""

    url: str

    @property
    def secret(self) -> dict[str, str]:
        """The credential of its account."""
        return {
            "connection_string": "DefaultEndpointsProtocol=http;"
            f"AccountName={_AZURITE_ACCOUNT};AccountKey={_AZURITE_KEY};"
            f"BlobEndpoint={self.url}/{_AZURITE_ACCOUNT};"
        }


@contextmanager
def s3() -> Iterator[str]:
    """moto with a bucket named :data:`BUCKET`; yields its endpoint URL."""
    if find_spec("moto") is None:
        raise ConfigurationError(
            "the demo's S3 server is not installed", hint="pip install 'auditstore[demo]'"
        )
    command = [sys.executable, "-P", "-m", s3_server.__name__]
    with server(command, says=s3_server.SAYS) as url:
        make = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")  # noqa: S310 - loopback
        with urllib.request.urlopen(make, timeout=10):  # noqa: S310 - as above
            pass
        yield url


def azurite_command() -> list[str | Path] | None:
    """Azurite's blob service as a command: the machine's own, or the tests'; else ``None``."""
    if found := shutil.which("azurite-blob"):
        return [found]
    node = shutil.which("node")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    scripts = sorted((caches / "auditstore-tests").glob(f"azurite-*/{_BLOB_SERVICE}"))
    return [node, scripts[-1]] if node and scripts else None


@contextmanager
def azurite(command: list[str | Path], folder: Path) -> Iterator[AzureServer]:
    """The blob service with its data in ``folder``, and a container in it."""
    from azure.storage.blob import ContainerClient  # noqa: PLC0415 - slow, and not always used

    folder.mkdir()
    watch = folder / "watch.js"
    watch.write_text(_WATCH)
    options: list[str | Path] = [
        "--blobPort", "0", "--skipApiVersionCheck", "--disableTelemetry", "--silent",
        "--location", folder / "data",
    ]  # fmt: skip
    environment = {"NODE_OPTIONS": f'--require "{watch}"'}
    with server(
        [*command, *options], says="successfully listens on ", environment=environment
    ) as url:
        running = AzureServer(url)
        account = running.secret["connection_string"]
        with ContainerClient.from_connection_string(account, BUCKET) as client:
            client.create_container()
        yield running
