"""The API as an ASGI application, and its OpenAPI description."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from auditstore.web.api import (
    append,
    credentials,
    deliveries,
    events,
    firehose,
    flows,
    jobs,
    streams,
)
from auditstore.web.api.limits import BodyLimit
from auditstore.web.api.problems import Problem, install
from auditstore.web.api.state import Api

#: Below these, the API answers; everything else is the console's.
ROOTS: Final = ("/api", "/events", "/flows", "/firehose")
V1: Final = "/api/v1"

_DESCRIPTION: Final = """
LeadConduit's own calls are at the root, as its tools expect them; what goes beyond them is below
`/api/v1`. Every call takes an API key by HTTP Basic: the user name `API`, the key as password.
Every refusal is an `application/problem+json` with `message`, `hint` and `code`.
"""


def create_api(api: Api) -> FastAPI:
    """The API on a database."""
    app = FastAPI(
        title="auditstore", version=_version(), description=_DESCRIPTION, docs_url=None,
        redoc_url=None, openapi_url=f"{V1}/openapi.json", redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        middleware=[
            Middleware(BodyLimit, most=api.settings.max_body,
                       most_at={f"{V1}/events": api.settings.max_append_body}),
        ],
    )  # fmt: skip
    app.state.api = api
    install(app)
    for router in (events.router, flows.router, firehose.router):
        app.include_router(router)
    beyond = APIRouter(prefix=V1)
    for router in (append.router, streams.router, deliveries.router, credentials.router,
                   jobs.router):  # fmt: skip
        beyond.include_router(router)
    app.include_router(beyond)
    app.openapi = cache(lambda: _described(app))  # type: ignore[method-assign]  # FastAPI's own way to extend it
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    routes: list[BaseRoute] = list(app.routes)
    found = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=routes
    )
    schemas = found["components"]["schemas"]
    # FastAPI's own schema of a refusal is not what is answered here.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs") | {"Problem": problem} | append.SCHEMAS
    return found


def _version() -> str:
    try:
        return version("auditstore")
    except PackageNotFoundError:
        return "0"
