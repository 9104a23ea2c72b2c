"""The worlds that are explored: in every test run, and the larger ones on demand."""

from __future__ import annotations

from typing import Final

from .settings import Settings

#: Small enough for every run; between them they have everything that the model knows.
WORLDS: Final = {
    "two workers, two transactions": Settings(ticks_in_turns=False),
    "two workers whose fences never rest, a transaction of two events": Settings(appends=(2,)),
    "three transactions": Settings(appends=(1, 1, 1), workers=1, ticks_in_turns=False),
    "prepared transactions, unflushed commits, a crash of the server": Settings(
        workers=1, prepared=True, server_crashes=1, asynchronous=True
    ),
    "positions handed out again after a crash": Settings(
        workers=1, rolled_back=2, server_crashes=1
    ),
    "two workers, positions handed out again after a crash": Settings(
        appends=(1,), rolled_back=2, server_crashes=1, asynchronous=True, ticks_in_turns=False
    ),
    "somebody else's object under the first key": Settings(appends=(1,), foreign=True),
}

#: Minutes, and some gigabytes.
LARGE_WORLDS: Final = {
    "two workers, unflushed commits, a crash of the server": Settings(
        appends=(2,), server_crashes=1, asynchronous=True, ticks_in_turns=False
    ),
    "two workers whose fences never rest, two transactions": Settings(),
    "two workers, prepared transactions": Settings(prepared=True, ticks_in_turns=False),
    "three transactions, one of two events": Settings(
        appends=(2, 1, 1), workers=1, ticks_in_turns=False
    ),
    "three transactions, prepared, a crash of the server": Settings(
        appends=(1, 1, 1), workers=1, prepared=True, server_crashes=1, ticks_in_turns=False
    ),
    "two crashes of the server": Settings(
        workers=1, prepared=True, server_crashes=2, asynchronous=True
    ),
    "two workers, two transactions, a crash of the server": Settings(
        server_crashes=1, asynchronous=True, ticks_in_turns=False
    ),
}
