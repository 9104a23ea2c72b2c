"""Fixtures that every test may ask for."""

pytest_plugins = ["support.fixtures_postgres", "support.fixtures_stores"]
