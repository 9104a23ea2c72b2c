"""Who calls: an API key by HTTP Basic, as LeadConduit has it, and what its role allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from auditstore import accounts
from auditstore.accounts import ROLES, Role
from auditstore.errors import NotFound
from auditstore.web.api.problems import Refused
from auditstore.web.api.state import Api, InApi

#: LeadConduit's user name for every key.
_USER: Final = "API"

_basic = HTTPBasic(
    scheme_name="APIKey", auto_error=False, realm="auditstore",
    description="The user name is `API`, the password an API key: `auditstore key add` makes one.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Caller:
    """A key in use. ``flows`` are those that it may see, ``None`` for all."""

    key_id: int
    name: str
    role: Role
    flows: frozenset[str] | None

    @property
    def actor(self) -> str:
        """How the record of changes and readings names it."""
        return f"API key {self.key_id} ({self.name})"

    def may_see(self, flow_id: str | None) -> bool:
        """Whether it may know of that flow; ``None`` is what belongs to all of them."""
        return self.flows is None or flow_id in self.flows

    def insist_on(self, flow_id: str) -> None:
        """Refuse a flow that this key is not for."""
        if not self.may_see(flow_id):
            raise Refused(
                403, "flow-not-allowed", "this key is not for this flow",
                hint="Use a key whose flows include it.",
            )  # fmt: skip

    def insist_on_all(self) -> None:
        """Refuse a key that is limited to flows what belongs to all of them."""
        if self.flows is not None:
            raise Refused(
                403, "flow-not-allowed", "this key is limited to flows, and this is of all flows",
                hint="Use a key without --flow.",
            )  # fmt: skip

    def hide(self, flow_id: str, what: str) -> None:
        """As if it were not there, where a key asks by number for what is of another flow."""
        if not self.may_see(flow_id):
            raise NotFound(f"there is no {what}", hint="")


def _caller(
    request: Request, api: InApi, given: Annotated[HTTPBasicCredentials | None, Security(_basic)]
) -> Caller:
    _insist_on_no_other_site(request)
    address = request.client.host if request.client else ""
    if given is None or given.username != _USER or not given.password:
        raise _unknown(api, address, "no API key was given")
    with api.reading() as connection:
        key = accounts.key_for(connection, given.password)
    if key is None:
        raise _unknown(api, address, "the API key is unknown, revoked or has expired")
    _take(api, str(key.key_id), mine=True)
    return Caller(key.key_id, key.name, key.role, key.flows)


def _insist_on_no_other_site(request: Request) -> None:
    """Refuse what another site's page makes a browser send, which adds a key that it was given."""
    if request.headers.get("sec-fetch-site") in {"cross-site", "same-site"}:
        raise Refused(
            403, "other-site", "a page of another site made this request",
            hint="The API is for programs; a browser may open its addresses itself.",
        )  # fmt: skip


def _unknown(api: Api, address: str, message: str) -> Refused:
    _take(api, address, mine=False)
    return Refused(
        401, "unauthorized", message,
        hint="HTTP Basic: the user name is API, the password is the key. `auditstore key add` "
        "makes one.",
        headers={"www-authenticate": 'Basic realm="auditstore"'},
    )  # fmt: skip


def _take(api: Api, name: str, *, mine: bool) -> None:
    wait = (api.of_keys if mine else api.of_strangers).wait(name)
    if wait:
        raise Refused(
            429, "too-many-requests", f"too many requests; there is room again in {wait} s",
            hint="Ask more slowly; the header Retry-After says when.",
            headers={"retry-after": str(wait)},
        )  # fmt: skip


def _at_least(role: Role) -> Callable[..., Caller]:
    def check(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
        if ROLES.index(caller.role) < ROLES.index(role):
            raise Refused(
                403, "role-not-allowed", f"this needs a key of the role {role}",
                hint=f"`auditstore key add NAME --role {role}` makes one.",
            )  # fmt: skip
        return caller

    return check


Viewer = Annotated[Caller, Depends(_at_least("viewer"))]
Operator = Annotated[Caller, Depends(_at_least("operator"))]
Administrator = Annotated[Caller, Depends(_at_least("administrator"))]
