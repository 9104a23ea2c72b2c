"""``python -m model`` in ``tests/``: the figures of every world; with ``--large``, of more."""

from __future__ import annotations

import sys
import time

from .world import check
from .worlds import LARGE_WORLDS, WORLDS


def main() -> int:
    """Explore; print the figures, and the way to whatever does not hold."""
    worlds = WORLDS | (LARGE_WORLDS if "--large" in sys.argv[1:] else {})
    failed = False
    for name, settings in worlds.items():
        began = time.monotonic()
        explored = check(settings)
        print(f"{name}: {explored}, {time.monotonic() - began:.1f} s", flush=True)
        if explored.found:
            print(explored.found)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
