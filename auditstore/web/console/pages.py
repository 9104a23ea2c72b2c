"""How a page is made: the visit that asks for it, and the templates that show it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from sqlalchemy import Connection, Engine
from starlette.responses import HTMLResponse, RedirectResponse, Response

from auditstore.cli.wording import age, ago, number, size
from auditstore.errors import NotFound
from auditstore.sql.failures import translated
from auditstore.vault import Vault

Role = Literal["viewer", "operator", "administrator"]
_RANK: Final[Mapping[str, int]] = {"viewer": 0, "operator": 1, "administrator": 2}

_COMMAND: Final = re.compile(r"`([^`]+)`")

#: How a state, an outcome or a step of a delivery is coloured; the word is always beside it.
_TONES: Final[Mapping[str, str]] = {
    "streaming": "good", "retrying": "wait", "late": "wait", "blocked": "bad", "halted": "bad",
    "disabled": "off", "no stream": "off",
    "success": "good", "continue": "good", "failure": "wait", "stop": "wait", "skip": "off",
    "error": "bad",
    "delivered": "good", "sealed": "wait", "appended": "off", "waiting": "off",
    "reconciled": "good", "differences": "bad", "not compared": "bad", "running": "wait",
    "works": "good", "warning": "wait", "fails": "bad",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Person:
    """Who is signed in; ``flows`` are those that he may see, ``None`` for all."""

    name: str
    role: Role
    flows: frozenset[str] | None = None

    def may(self, role: Role) -> bool:
        """Whether this person has at least that role."""
        return _RANK[self.role] >= _RANK[role]

    def may_everywhere(self, role: Role) -> bool:
        """Whether this person has at least that role, for all flows."""
        return self.flows is None and self.may(role)

    def may_see(self, flow_id: str) -> bool:
        """Whether this person may see that flow."""
        return self.flows is None or flow_id in self.flows


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a person: what was asked, and what it may be answered from."""

    engine: Engine
    vault: Vault
    person: Person
    csrf: str
    path: str
    query: Mapping[str, str]
    form: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_fragment: bool = False
    state: Any = None
    record_reading: Callable[[Connection, str, str], None] | None = None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read from, nothing of it open afterwards."""
        with translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """A transaction, committed at the end."""
        with translated(), self.engine.begin() as connection:
            yield connection

    @property
    def flow_id(self) -> str:
        """The flow that the page is about; NotFound for one that this person may not see."""
        flow_id = self.form.get("id") or self.query.get("id") or ""
        if not flow_id or not self.person.may_see(flow_id):
            raise NotFound("there is no such flow here", hint="Choose one from the list of flows.")
        return flow_id

    @property
    def actor(self) -> str:
        """Who changes are recorded under."""
        return f"{self.person.name} (console)"


def shown(visit: Visit, template: str, *, status: int = 200, **values: Any) -> Response:
    """A page, or where htmx asks for it a part of one."""
    text = _environment().get_template(template).render(visit=visit, **values)
    return HTMLResponse(text, status_code=status)


def moved(visit: Visit, path: str, **parameters: Any) -> Response:
    """Go on to another page, after something was changed."""
    target = link(path, **parameters)
    if visit.is_fragment:
        return Response(status_code=204, headers={"HX-Redirect": target})
    return RedirectResponse(target, status_code=303)


def link(path: str, **parameters: Any) -> str:
    """A path with the parameters that have a value."""
    given = {name: value for name, value in parameters.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def tone(word: str | None) -> str:
    """The colour of a word that says how something stands."""
    return _TONES.get(word or "", "bare")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__ or "", "templates"),
        autoescape=select_autoescape(["html"], default=True),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.globals.update(link=link, tone=tone, version=_version())
    environment.filters.update(
        age=age,
        ago=ago,
        number=number,
        size=size,
        utc=_time,
        hex=bytes.hex,
        marked=marked,
        breakable=breakable,
    )
    return environment


def gate(template: str, *, status: int = 200, **values: Any) -> Response:
    """A page for people who are not signed in."""
    text = _environment().get_template(template).render(**values)
    return HTMLResponse(text, status_code=status)


def _time(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def marked(text: str) -> Markup:
    """A sentence whose `commands` are shown as such."""
    return Markup(_COMMAND.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704  # escaped


def breakable(key: str) -> Markup:
    """A key that may go on in the next line behind each slash."""
    return Markup(str(escape(key)).replace("/", "/<wbr>"))  # noqa: S704  # escaped


def _version() -> str:
    try:
        return version("auditstore")
    except PackageNotFoundError:
        return ""
