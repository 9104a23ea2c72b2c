"""A soak: random faults of every kind, one upon another, for as many minutes as asked.

    python -m tests.faults.soak --minutes 30 [--seed N]

Each round has a database of its own, on a server of its own with fsync, a place on S3, Azure or
in a folder behind the fault proxy, two or three exporters and eight writers. At the end of a
round nothing may be lost, nothing doubled, nothing altered; the first round that breaks the
promise ends the soak with exit code 1. The seed fixes which faults come in which order.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

# Started as a program, what pytest is told in its settings is said here.
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.azurite import Azurite, running_azurite
from support.fault_proxy import Fault, FaultProxy, running_fault_proxy
from support.fault_run import LARGE, FaultRun
from support.fixtures_postgres import NEWEST, VERSIONS
from support.postgres import Cluster
from support.stores import (
    S3_SECRET,
    Place,
    make_bucket,
    make_container,
    running_moto,
    unique_name,
)
from support.through_proxy import behind

from auditstore import streams
from auditstore.database import migrate
from auditstore.destinations import Destination

_STEPS_A_ROUND = 6
_RECOVERY_S = 90.0

#: What a store may do to requests. None of it lasts, and none may halt a stream.
STORE_FAULTS = {
    "500": Fault(status=500, code="InternalError"),
    "503 SlowDown": Fault(status=503, code="SlowDown"),
    "429": Fault(status=429, code="TooManyRequests"),
    "403": Fault(status=403, code="AccessDenied"),
    "request lost": Fault(request="lost"),
    "request late": Fault(request="late"),
    "request cut": Fault(request="cut"),
    "answer lost": Fault(answer="never"),
    "answer cut": Fault(answer="cut"),
    "answer truncated": Fault(answer="half"),
}


@dataclass
class Stage:
    """The servers of one round, and the run on them."""

    cluster: Cluster
    proxy: FaultProxy | None
    run: FaultRun

    @property
    def chance(self) -> random.Random:
        """The round's own chance."""
        return self.run.chance


Injection = Callable[[Stage], None]


def pause(stage: Stage, shortest: float, longest: float) -> None:
    """Let the fault last; there is nothing to wait for."""
    time.sleep(stage.chance.uniform(shortest, longest))


def kill_an_exporter(stage: Stage) -> None:
    """SIGKILL, and another in its place."""
    stage.chance.choice(stage.run.exporters).restart()


def stop_an_exporter(stage: Stage) -> None:
    """SIGTERM, in order, and start it again."""
    exporter = stage.chance.choice(stage.run.exporters)
    assert exporter.stop() == 0
    exporter.start()


def pause_an_exporter(stage: Stage) -> None:
    """SIGSTOP for longer than its leases last; then it goes on as if nothing had been."""
    exporter = stage.chance.choice(stage.run.exporters)
    exporter.pause()
    pause(stage, 0.8, 2.5)
    exporter.resume()


def crash_the_server(stage: Stage) -> None:
    """An immediate shutdown, some time without, and crash recovery."""
    stage.cluster.stop("immediate")
    pause(stage, 0.0, 1.5)
    stage.cluster.start()


def restart_the_server(stage: Stage) -> None:
    """As for an update."""
    stage.cluster.restart("fast")


def end_sessions(application: str) -> Injection:
    """`pg_terminate_backend` of each session of an application."""

    def end(stage: Stage) -> None:
        for _ in range(stage.chance.randint(1, 4)):
            stage.cluster.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = %s",
                application,
            )
            pause(stage, 0.05, 0.3)

    return end


def take_the_store_away(stage: Stage) -> None:
    """Nobody listens there for a while."""
    if stage.proxy is not None:
        stage.proxy.go_away()
        pause(stage, 0.3, 2.0)
        stage.proxy.come_back()


INJECTIONS: dict[str, Injection] = {
    "exporter killed": kill_an_exporter,
    "exporter stopped": stop_an_exporter,
    "exporter paused": pause_an_exporter,
    "server crashed": crash_the_server,
    "server restarted": restart_the_server,
    "exporters' sessions ended": end_sessions("auditstore exporter"),
    "writers' sessions ended": end_sessions("writers"),
    "store away": take_the_store_away,
}


def step(stage: Stage) -> None:
    """One or two faults at once, then everything must come to be delivered."""
    rule = None
    if stage.proxy is not None and stage.chance.random() < 0.6:
        name = stage.chance.choice(list(STORE_FAULTS))
        method = stage.chance.choice(["PUT", "PUT", "GET|HEAD", ".*"])
        count = stage.chance.choice([1, 3, None])
        rule = stage.proxy.inject(STORE_FAULTS[name], method=method, count=count)
        stage.run.injected(name)
        pause(stage, 0.1, 1.0)
    if rule is None or stage.chance.random() < 0.6:
        name = stage.chance.choice(list(INJECTIONS))
        INJECTIONS[name](stage)
        stage.run.injected(name)
        pause(stage, 0.0, 0.5)
    if stage.proxy is not None:
        stage.proxy.lift_all()
    _resume_blocked(stage)
    stage.run.recovered(_RECOVERY_S)


def _resume_blocked(stage: Stage) -> None:
    """What an operator does who has mended the cause; by itself it would take half a minute."""
    with stage.run.engine.begin() as connection:
        for stream in streams.find(connection):
            assert stream.status.state != "halted", stream.status
            if stream.status.state == "blocked":
                streams.resume(connection, stream.stream_id, actor="soak")


@dataclass
class Servers:
    """What all rounds share."""

    cluster: Cluster
    moto: str
    azurite: Azurite


@contextmanager
def a_place(
    servers: Servers, kind: str, folder: Path
) -> Iterator[tuple[Place, Place, FaultProxy | None]]:
    """A fresh place of the kind: as it is, as the exporters reach it, and what is between."""
    if kind == "file":
        place = Place(
            "file", Destination("file", str(folder / "store")), None,
            Destination("file", str(folder / "absent")), "",
        )  # fmt: skip
        yield place, place, None
        return
    if kind == "s3":
        destination = Destination("s3", make_bucket(servers.moto), "soak", servers.moto)
        place = Place("s3", destination, S3_SECRET, destination, "")
        upstream = servers.moto
    else:
        destination = Destination("azure", make_container(servers.azurite), "soak")
        secret = {"connection_string": servers.azurite.connection_string}
        place = Place("azure", destination, secret, destination, "")
        upstream = servers.azurite.account_url.rpartition("/")[0]
    with running_fault_proxy(upstream, "s3" if kind == "s3" else "azure") as proxy:
        yield place, behind(proxy, place), proxy


@dataclass
class Total:
    """What the rounds so far came to."""

    rounds: int = 0
    events: int = 0
    objects: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    recoveries: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        """For the end, and for a round that failed."""
        slow = sorted(self.recoveries) or [0.0]
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        return (
            f"{self.rounds} rounds, {self.events} events in {self.objects} objects,"
            f" {self.faults.total()} faults ({faults});"
            f" recovered after {slow[len(slow) // 2]:.1f} s (median), {slow[-1]:.1f} s (worst)"
        )


def soak_round(servers: Servers, seed: int, total: Total, *, steps: int = _STEPS_A_ROUND) -> None:
    """One round with its own database and place; raises when the promise is broken."""
    chance = random.Random(seed)
    kind = chance.choice(["s3", "s3", "azure", "file"])
    name = unique_name("soak").replace("-", "_")
    servers.cluster.execute(f"CREATE DATABASE {name}")
    url = servers.cluster.url(name)
    migrate(url)
    with (
        tempfile.TemporaryDirectory(prefix="auditstore-soak-") as folder,
        a_place(servers, kind, Path(folder)) as (place, reached, proxy),
    ):
        run = FaultRun(
            url, place, exporters=chance.choice([2, 2, 3]), limits=LARGE, pace=0.3, seed=seed,
            secret=reached.secret,
            destination=reached.destination, exporter={"constants": _SHORT_LIMITS},
        )  # fmt: skip
        stage = Stage(servers.cluster, proxy, run)
        with run.running(within=_RECOVERY_S):
            for _ in range(steps):
                run.progress(events=10, within=_RECOVERY_S)
                step(stage)
        figures = run.check()
    total.rounds += 1
    total.events += figures.events
    total.objects += figures.objects
    total.faults += figures.faults
    total.recoveries += figures.recoveries
    # Its prepared transactions are over, so nothing keeps it.
    servers.cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")


# So that a store that hangs is given up within the round.
_SHORT_LIMITS = {
    "exporters.stores.s3_session.READ_TIMEOUT_S": 1.0,
    "exporters.stores.azure_client.READ_TIMEOUT_S": 1.0,
}


def soak(servers: Servers, *, minutes: float, seed: int) -> Total:
    """Rounds until the time is over."""
    total = Total()
    ends_at = time.monotonic() + minutes * 60
    seeds = random.Random(seed)
    while not total.rounds or time.monotonic() < ends_at:
        round_seed = seeds.getrandbits(32)
        print(f"--- round {total.rounds + 1}, its seed {round_seed}", flush=True)
        soak_round(servers, round_seed, total)
    return total


def main() -> int:
    """The program; its exit code is 1 when a round failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    asked = parser.parse_args()
    print(f"soak: {asked.minutes:g} minutes, --seed {asked.seed}", flush=True)
    with ExitStack() as stack:
        cluster = Cluster.create(VERSIONS[NEWEST])
        stack.callback(cluster.destroy)
        moto = stack.enter_context(running_moto())
        servers = Servers(cluster, moto, stack.enter_context(running_azurite()))
        try:
            total = soak(servers, minutes=asked.minutes, seed=asked.seed)
        except Exception:  # noqa: BLE001  # shown, with the seed that repeats it
            traceback.print_exc()
            print(f"FAILED; repeat with --seed {asked.seed}", flush=True)
            return 1
    print(f"clean: {total}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
