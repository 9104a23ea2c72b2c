"""Fixtures that every test may ask for."""

import time

import pytest

pytest_plugins = ["support.fixtures_postgres", "support.fixtures_stores"]

# A test that counts files takes less than this from its first event to its last.
_NEAR_THE_HOUR_S = 3.0


@pytest.fixture(autouse=True)
def _clear_of_the_hour() -> None:
    """Begin no test in the last seconds of an hour: files end there, and tests count files.

    What happens at the hour has tests of its own, with times of their own.
    """
    left = 3600 - time.time() % 3600
    if left < _NEAR_THE_HOUR_S:
        time.sleep(left)
