"""Every refusal of the API as `application/problem+json` (RFC 9457): message, hint and code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from auditstore.errors import (
    AuditStoreError,
    DatabaseRefused,
    DatabaseUnavailable,
    EventConflict,
    NotFound,
    SchemaOutdated,
    StoreUnavailable,
)

PROBLEM_TYPE: Final = "application/problem+json"

#: The first that an error is an instance of; whatever else we refuse is the request's fault.
_STATUS: Final[tuple[tuple[type[AuditStoreError], int], ...]] = (
    (NotFound, 404),
    (EventConflict, 409),
    (DatabaseUnavailable, 503),
    (SchemaOutdated, 503),
    (DatabaseRefused, 500),
    (StoreUnavailable, 503),
)


class FieldFault(BaseModel):
    """One thing that is wrong with the request, and where: `query.limit`, `body.bucket`."""

    field: str
    message: str


class Problem(BaseModel):
    """Why a request was refused, and what to do about it."""

    type: str = Field(default="about:blank", description="Always `about:blank`; see `code`.")
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What happened; the same as `message`.")
    message: str = Field(description="What happened.")
    hint: str = Field(description="What to do about it; may be empty.")
    code: str = Field(description="A stable word for programs.")
    errors: list[FieldFault] = Field(description="Which parts of the request are wrong.")


class Refused(Exception):
    """A refusal that only the API knows, with its status."""

    def __init__(
        self, status: int, code: str, message: str, *, hint: str = "",
        headers: Mapping[str, str] | None = None, errors: Sequence[FieldFault] = (),
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.code, self.message, self.hint = status, code, message, hint
        self.headers, self.errors = headers, errors


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals that the OpenAPI description names for a call, beside those of every call."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({400, 401, 403, 404, 413, 422, 429, 503, *statuses})
    }


def problem(
    status: int, code: str, message: str, *, hint: str = "",
    headers: Mapping[str, str] | None = None, errors: Sequence[FieldFault] = (),
) -> Response:  # fmt: skip
    """A refusal as a response."""
    said = Problem(
        type="about:blank", title=HTTPStatus(status).phrase, status=status, detail=message,
        message=message, hint=hint, code=code, errors=list(errors),
    )  # fmt: skip
    body = orjson.dumps(said.model_dump())
    return Response(body, status, headers, media_type=PROBLEM_TYPE)


def status_of(error: AuditStoreError) -> int:
    """The HTTP status of one of our errors."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 422)


def install(app: FastAPI) -> None:
    """Let every error of the application be answered as a problem."""

    def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, AuditStoreError)  # noqa: S101  # as registered below
        status = status_of(error)
        headers = {"retry-after": "1"} if status == 503 else None
        return problem(status, error.code, error.message, hint=error.hint, headers=headers)

    def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)  # noqa: S101  # as registered below
        return problem(
            error.status, error.code, error.message, hint=error.hint, headers=error.headers,
            errors=error.errors,
        )  # fmt: skip

    def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101  # as registered below
        # Never `input`: it may be a secret.
        faults = [
            FieldFault(field=_place(each["loc"]), message=str(each["msg"]))
            for each in error.errors()
        ]
        first = faults[0] if faults else FieldFault(field="request", message="not understood")
        return problem(
            422, "invalid-request", f"{first.field}: {first.message}", errors=faults,
            hint="Each fault is under errors; /api/v1/openapi.json describes every call.",
        )  # fmt: skip

    def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  # as registered below
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        return problem(
            error.status_code, code, str(error.detail), headers=error.headers,
            hint="/api/v1/openapi.json describes every call.",
        )  # fmt: skip

    def unexpected(_: Request, error: Exception) -> Response:
        # The server's log has the error itself, which may quote what nobody else is to see.
        del error
        return problem(
            500, "internal-error", "this server made a mistake; the request may be right",
            hint="Its log says which. Try again, and report it if it stays.",
        )  # fmt: skip

    app.add_exception_handler(Exception, unexpected)
    app.add_exception_handler(AuditStoreError, ours)
    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _place(location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in location) or "request"
