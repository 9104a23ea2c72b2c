"""The OpenAPI description: complete, and kept by every call that schemathesis makes up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import hypothesis
import pytest
import sqlalchemy as sa
from openapi_spec_validator import validate
from schemathesis import GenerationMode, openapi
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance
from support.sample_events import snapshot

from auditstore.repository import EventRepository
from auditstore.web.api.app import ROOTS

_DESCRIPTION = "/api/v1/openapi.json"


@pytest.fixture
def described(client: httpx.Client) -> dict[str, Any]:
    """The description, as it is served."""
    answer = client.get(_DESCRIPTION)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_the_description_is_valid_and_says_everything(described: dict[str, Any]) -> None:
    """Every call has a summary, the key, its refusals as problems, and parameters in words."""
    validate(described)
    for path, calls in described["paths"].items():
        assert path.startswith(ROOTS)
        for method, call in calls.items():
            assert call["description"], (path, method)
            assert call["security"] == [{"APIKey": []}], (path, method)
            assert {"401", "403", "422", "429"} <= call["responses"].keys(), (path, method)
            for status, response in call["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"]


def no_schema_valid_request_is_invalid(ctx: Any, response: Any, case: Any) -> None:
    """What the description allows is refused for its meaning only, never for its form."""
    del ctx
    if case.meta.generation.mode.is_positive and response.status_code == 422:
        assert response.json()["code"] != "invalid-request", response.text


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_call_keeps_the_description(
    engine: sa.Engine, api_url: str, new_api_key: Callable[..., str], described: dict[str, Any],
    mode: GenerationMode,
) -> None:  # fmt: skip
    """Made-up requests, good and bad: never a server error, never an answer it does not name."""
    with engine.begin() as connection:
        EventRepository().append(connection, [snapshot(n) for n in range(1, 4)])
    config = SchemathesisConfig.from_dict({
        "base-url": api_url, "auth": {"basic": {"username": "API", "password": new_api_key()}},
        # Of an array, each event that is wrong has its own answer.
        "operations": [{"include-name": "POST /api/v1/events", "checks": {
            "negative_data_rejection": {"expected-statuses": ["207", "4xx"]},
        }}],
    })  # fmt: skip
    schema = openapi.from_dict(described, config=config)
    failures: list[str] = []
    called = 0

    def tried(operation: Any) -> None:
        @hypothesis.settings(
            max_examples=8, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck), print_blob=False,
        )  # fmt: skip
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def call(case: Any) -> None:
            nonlocal called
            called += 1
            case.call_and_validate(
                additional_checks=[no_schema_valid_request_is_invalid],
                # It would have every URL, template and endpoint that a string can be taken.
                excluded_checks=[positive_data_acceptance],
            )  # fmt: skip

        call()

    for found in schema.get_all_operations():
        operation = found.ok()
        try:
            tried(operation)
        except (AssertionError, BaseExceptionGroup) as error:
            failures.append(f"{operation.method} {operation.path}: {_told(error)}")
    assert not failures, "\n\n".join(failures)
    assert called > 100


def _told(error: BaseException) -> str:
    """What schemathesis found."""
    inner = getattr(error, "exceptions", ())
    return f"{error}\n" + "\n".join(_told(each) for each in inner)
