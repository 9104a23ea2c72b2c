"""Workers on other machines, by Dask's ``distributed``: the only module that knows it."""

from __future__ import annotations

from concurrent.futures import Executor
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from distributed import Client as _Client
from distributed import KilledWorker

from auditstore.errors import ClusterUnavailable
from auditstore.reconciliation.workers import Workers

Client: Any = _Client  # its methods have no types

_HINT = "Look whether `dask scheduler` and `dask worker` run, and whether the port can be reached."


def cluster(
    address: str, *, count: int | None = None, within: float = 30.0, patience: float = 600.0
) -> Workers:
    """The workers of the scheduler at ``address``, such as ``tcp://host:8786``.

    ``count`` is how many files they read at once, by default one for each of their threads. Raises
    ClusterUnavailable if scheduler and workers are not there ``within`` so many seconds, or the
    workers have another version of this package. ``patience``: see :class:`Workers`.
    """
    try:
        client = Client(address, timeout=within, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterUnavailable(
            f"the scheduler at {address} cannot be reached within {within:.0f} seconds", hint=_HINT
        ) from error
    try:
        client.wait_for_workers(1, timeout=within)
        versions = _versions(client)
        threads = sum(client.nthreads().values())
        _check(versions)
    except OSError as error:
        client.close()
        raise ClusterUnavailable(
            f"the scheduler at {address} has no workers that answer", hint=_HINT
        ) from error
    except BaseException:
        client.close()
        raise

    return Workers(
        # Not pure: an object that is read a second time may be another one by then.
        lambda: client.get_executor(pure=False),
        count or threads,
        shares_memory=False,
        renews=False,
        losses=(KilledWorker,),
        patience=patience,
        end=_cancel,
        leave=client.close,
    )


def _cancel(executor: Executor) -> None:
    executor.shutdown(wait=False)


def _versions(client: Any) -> set[str]:
    try:
        return set(client.run(_version).values())
    except ImportError:
        return {"none"}  # what is asked of them is of the package itself


def _check(versions: set[str]) -> None:
    others = sorted(versions - {_version()})
    if others:
        raise ClusterUnavailable(
            f"workers of the cluster have auditstore {', '.join(others)}, and not {_version()}",
            hint="Install `auditstore[cluster]` of one version on every worker.",
        )


def _version() -> str:
    """Which version is installed; asked of every worker."""
    try:
        return version("auditstore")
    except PackageNotFoundError:
        return "none"
