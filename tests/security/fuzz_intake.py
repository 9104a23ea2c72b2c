"""Fuzz what is taken as an event: ``python -m tests.security.fuzz_intake --minutes 10``.

Every snapshot is offered to the intake, to Python's parser and to a real PostgreSQL, and they
must agree (``support/intake_judge.py``). The smallest snapshot of each kind of answer is kept
in ``corpus/``, which ``test_intake.py`` replays; one about which they disagree is kept there
too, shrunk, and the program leaves with 1.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import secrets
import sys
import time
from pathlib import Path

# Run as a module of the tree, it finds the tests' own packages as pytest would.
sys.path.insert(0, str(Path(__file__).parent.parent))

import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from support.fixtures_postgres import NEWEST, VERSIONS
from support.intake_judge import Verdict, check_snapshot
from support.postgres import Cluster

from auditstore.database import migrate
from auditstore.events import Event, FieldRefused

CORPUS = Path(__file__).parent / "corpus"
_ROUND = 1000
_LONGEST_KEPT = 4000

# --- snapshots ------------------------------------------------------------------------

_ODD_TEXT = st.sampled_from(
    [
        "\\u0000", "\\ud800", "\\udc00", "\\ud83d\\ude00", "\\ude00\\ud83d", "\\u202e", "\\u2028",
        "\u2028", "\u202e", "\x7f", "\x9b", "\ufeff", "\ufffe", "\U0010ffff", "é", "e\u0301", "\\/",
        "\\\\", '\\"', "\\n", "\\x", "\\u12", "\\u+123", "\n", "\t", "\x1b[31m",
        "'; DROP TABLE x; --", "../", "%00", "%2e%2e", "$(id)", "{0.__class__}", "\x00",
        "x" * 60, "é" * 128, "x" * 256,
    ]
)  # fmt: skip
_TEXT = st.lists(_ODD_TEXT | st.text(max_size=6), max_size=5).map("".join)
_STRING = _TEXT.map(lambda text: f'"{text}"')
_NUMBER = st.sampled_from(
    [
        "0", "-0", "01", "1.", ".5", "+1", "1e5", "1E+5", "1e", "1e999", "-1e999", "1e-999",
        "0.1000000000000000055511151231257827", "9" * 25, "-" + "9" * 25, "9" * 5000,
        "18446744073709551615", "18446744073709551616", "-9223372036854775809", "0x10", "1_000",
        "1764000000123", "1764000000123.0", "-5", "253402300799999", "253402300800000", "1e12",
        "NaN", "Infinity", "-Infinity", "nan", "true", "false", "null", "True", "None", "undefined",
    ]
)  # fmt: skip
_SPACE = st.sampled_from(
    ["", "", "", "", " ", "\n", "\r\n", "\t", "\u00a0", "\f", "\u2028", "\ufeff"]
)


def _array(parts: list[str]) -> str:
    return "[" + ",".join(parts) + "]"


def _object(parts: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{name}:{value}" for name, value in parts) + "}"


def _nested(brackets: tuple[str, str], levels: int, inner: str) -> str:
    return brackets[0] * levels + inner + brackets[1] * levels


_NESTED = st.builds(
    _nested,
    st.sampled_from(
        [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]"), ("[[", "]]"), ('{"]":', "}"), ("[", "}")]
    ),
    st.sampled_from([1, 5, 100, 449, 499, 510, 600, 1000, 1020, 1030, 5000]),
    _NUMBER | _STRING,
)  # fmt: skip
_VALUE = st.recursive(
    _NUMBER | _STRING | _NESTED,
    lambda inner: (
        st.lists(inner, max_size=3).map(_array)
        | st.lists(st.tuples(_STRING, inner), max_size=3).map(_object)
    ),
    max_leaves=6,
)
_ID = st.sampled_from(
    [
        '"6924f1c0a1b2c3d4e5f60718"', '"6924F1C0A1B2C3D4E5F60718"', '"6924f1c0a1b2c3d4e5f6071"',
        '"6924f1c0a1b2c3d4e5f607180"', '"\\u0036924f1c0a1b2c3d4e5f60718"',
        '"000000000000000000000000"', '"ffffffffffffffffffffffff"', '" 6924f1c0a1b2c3d4e5f60718"',
        '"6924f1c0a1b2c3d4e5f6071\u0661"',
    ]
)  # fmt: skip


def _mostly(
    usual: st.SearchStrategy[str], otherwise: st.SearchStrategy[str]
) -> st.SearchStrategy[str]:
    return st.integers(0, 9).flatmap(lambda chance: usual if chance else otherwise)


_OWNER = _mostly(_TEXT.map(lambda text: f'{{"id":"f{text}"}}'), _VALUE)
_VARS = _mostly(
    st.builds(
        lambda flow, lead, more: _object([('"flow"', flow), ('"lead"', lead), *more]),
        _OWNER, _OWNER,
        st.lists(st.tuples(st.sampled_from(['"flow"', '"lead"', '"x"']), _OWNER), max_size=1),
    ),
    _VALUE,
)  # fmt: skip
_KNOWN = (
    "type", "outcome", "reason", "step_id", "start_timestamp", "end_timestamp", "id", "vars", "x",
)  # fmt: skip
_TIMES = st.tuples(
    st.sampled_from(['"start_timestamp"', '"end_timestamp"']),
    st.sampled_from(["1764000000123", "0", "-1", "253402300799999", "253402300800000"]),
)
_MEMBERS = st.lists(
    st.tuples(st.sampled_from([f'"{name}"' for name in _KNOWN]) | _STRING, _VALUE) | _TIMES,
    max_size=4,
)


def _event(event_id: str, variables: str, members: list[tuple[str, str]], space: str) -> str:
    parts = [*members, ('"id"', event_id), ('"vars"', variables)]
    return space + _object([(name + space, space + value) for name, value in parts]) + space


_DOCUMENT = _mostly(st.builds(_event, _mostly(_ID, _VALUE), _VARS, _MEMBERS, _SPACE), _VALUE)
_DAMAGE = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=4)), max_size=3
)


def _damaged(document: str, damage: list[tuple[int, int, bytes]]) -> bytes:
    payload = document.encode(errors="surrogatepass")
    for at, drop, new in damage:
        start = at % (len(payload) + 1)
        payload = payload[:start] + new + payload[start + drop :]
    return payload


#: Events, nearly events, and what is left of them after a few bytes were changed.
snapshots = st.integers(0, 3).flatmap(
    lambda chance: st.builds(_damaged, _DOCUMENT, _DAMAGE if chance == 0 else st.just([]))
)

# --- the corpus -----------------------------------------------------------------------


class Corpus:
    """The smallest snapshot of each kind of answer, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, tuple[int, Path]] = {}
        folder.mkdir(exist_ok=True)
        for path in sorted(folder.iterdir()):
            payload = path.read_bytes()
            self._kept[kind_of(payload)] = (len(payload), path)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._kept)

    def offer(self, payload: bytes, verdict: Verdict, *, word: str = "") -> None:
        """Keep it if nothing smaller of its kind is kept."""
        kind = word or kind_of(payload)
        known = self._kept.get(kind)
        if len(payload) > _LONGEST_KEPT or (known is not None and known[0] <= len(payload)):
            return
        if known is not None:
            known[1].unlink()
        said = f"refused-{verdict.field}" if verdict.field else "taken"
        name = f"{said}-{hashlib.sha256(payload).hexdigest()[:12]}"
        path = self._folder / name
        path.write_bytes(payload)
        self._kept[kind] = (len(payload), path)


def kind_of(payload: bytes) -> str:
    """The answer without what differs from snapshot to snapshot."""
    try:
        event = Event.from_json(payload)
    except FieldRefused as error:
        # Of a wrong id only what kind of thing it is.
        reason = re.sub(r"^.*(?= is not 24)|'.*'|\".*\"|\d+", "#", error.reason)
        return f"refused {error.field} {reason}"
    odd = [word for word in (b"\\u", b"\\", b"\n", b"\r", b"e9") if word in event.payload]
    present = [name for name in ("lead_id", "type", "reason", "started_at") if getattr(event, name)]
    return f"taken {odd} {present} {event.payload.isascii()}"


# --- the program ----------------------------------------------------------------------


def fuzz(engine: sa.Engine, corpus: Corpus, *, ends_at: float, first_seed: int) -> tuple[int, int]:
    """Try snapshots until ``ends_at`` (monotonic); how many, and how many disagreements."""
    tried = found = 0
    with engine.connect() as connection:
        while time.monotonic() < ends_at:
            last = b""

            @seed(first_seed + tried)
            @settings(
                max_examples=_ROUND, deadline=None, database=None, print_blob=False,
                report_multiple_bugs=False,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(snapshots, st.sampled_from([0, 0, 2]))
            def a_round(payload: bytes, beside: int) -> None:
                nonlocal last, tried
                last, tried = payload, tried + 1
                corpus.offer(payload, check_snapshot(connection, payload, beside=beside))

            try:
                a_round()
            except AssertionError as error:
                found += 1
                print(f"DISAGREEMENT {last!r}: {error}", flush=True)
                connection.rollback()
                corpus.offer(last, Verdict("disagreement"), word=f"disagreement {error}")
            except sa.exc.DBAPIError as error:
                found += 1
                print(f"THE SERVER REFUSED {last!r}: {error.orig}", flush=True)
                connection.rollback()
    return tried, found


def main() -> int:
    """Fuzz on a server of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    given_ = parser.parse_args()
    print(f"seed {given_.seed}", flush=True)
    cluster = Cluster.create(VERSIONS[NEWEST], settings={"fsync": "off"})
    try:
        cluster.execute("CREATE DATABASE fuzz")
        migrate(cluster.url("fuzz"))
        engine = sa.create_engine(cluster.url("fuzz"))
        corpus = Corpus(given_.corpus)
        ends_at = time.monotonic() + given_.minutes * 60
        tried, found = fuzz(engine, corpus, ends_at=ends_at, first_seed=given_.seed)
        engine.dispose()
    finally:
        cluster.destroy()
    print(f"{tried} snapshots, {found} disagreements, corpus of {len(corpus)}", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
