"""The Event Stream dialog: shown, previewed, tested and saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from auditstore import credentials, streams
from auditstore.cli.store_test import StoreTest, try_store
from auditstore.errors import AuditStoreError, ConfigurationError
from auditstore.streams import Stream
from auditstore.web.console.flows import frame
from auditstore.web.console.pages import Visit, moved, shown
from auditstore.web.console.stream_plan import (
    Plan,
    carry_out,
    key_preview,
    plan,
    refusal_field,
)
from auditstore.web.console.stream_wish import (
    CONTAINER_NAMES,
    SECRET_FIELDS,
    SERVICE_NAMES,
    SERVICES,
    Service,
    Wish,
    shown_stream,
    typed_wish,
    wish_of,
)
from auditstore.web.reach import credentials_for


@dataclass(slots=True)
class Dialog:
    """All that the dialog shows: wishes with their plans and keys, and what was answered."""

    flow_id: str
    plans: Sequence[Plan]
    known: Sequence[credentials.Credential]
    keys: Mapping[Service, str]
    others: Sequence[Stream]
    on: bool
    errors: dict[str, str] = field(default_factory=dict)
    tests: list[tuple[str, StoreTest | None, AuditStoreError | None]] = field(default_factory=list)
    saved: bool = False

    @property
    def sentences(self) -> list[str]:
        """What changes on save."""
        return [sentence for each in self.plans for sentence in each.sentences]

    @property
    def all_errors(self) -> dict[str, str]:
        """Every error by the form's own name of the field."""
        found = {
            f"{each.wish.service}_{name}": text
            for each in self.plans
            for name, text in each.wish.errors.items()
        }
        return found | self.errors


def dialog(visit: Visit) -> Response:
    """The dialog as it stands; a page of its own where there is no JavaScript."""
    return _answer(visit, _as_it_stands(visit), "stream_dialog.html")


def preview(visit: Visit) -> Response:
    """What changes on save and the keys, while it is being typed; complains of nothing."""
    return _answer(visit, _as_typed(visit), "stream_preview.html")


def test(visit: Visit) -> Response:
    """Write a verification object to every service that is on, and say what happened."""
    made = _as_typed(visit)
    if not any(each.wish.on for each in made.plans):
        made.errors["services"] = "Choose at least one service to test."
    if not made.all_errors:
        for each in made.plans:
            if each.wish.on:
                made.tests.append(_tried(visit, made.flow_id, each))
    return _answer(visit, made, "stream_answer.html", status=422 if made.all_errors else 200)


def save(visit: Visit) -> Response:
    """Do what was said, all of it or nothing."""
    made = _as_typed(visit)
    if made.on and not any(each.wish.on for each in made.plans):
        made.errors["services"] = "Choose at least one service, or switch streaming off."
    if not visit.form.get("confirm"):
        made.errors["confirm"] = "Tick the box to say that this is meant."
    if not made.all_errors:
        try:
            with visit.changing() as connection:
                carry_out(connection, visit.vault, made.flow_id, made.plans, actor=visit.actor)
        except ConfigurationError as error:
            service = next((each.wish.service for each in made.plans if each.wish.on), "s3")
            made.errors[f"{service}_{refusal_field(error)}"] = f"{error.message}. {error.hint}"
        else:
            return moved(visit, "/flow", id=made.flow_id,
                         done="saved" if made.sentences else "unchanged")  # fmt: skip
    return _answer(visit, made, "stream_answer.html", status=422)


# --- what it is made from -------------------------------------------------------------


def _as_it_stands(visit: Visit) -> Dialog:
    with visit.reading() as connection:
        of_flow = streams.find(connection, flow_id=visit.flow_id)
        wishes = [wish_of(service, shown_stream(service, of_flow)) for service in SERVICES]
        return _made(connection, visit, wishes, of_flow, on=any(wish.on for wish in wishes))


def _as_typed(visit: Visit) -> Dialog:
    on = bool(visit.form.get("enabled"))
    with visit.reading() as connection:
        of_flow = streams.find(connection, flow_id=visit.flow_id)
        known = credentials_for(connection, visit.person.flows)
        form = dict(visit.form)
        if not on:
            # Off is off for every service; what was typed for them stays in the form.
            form = {name: value for name, value in form.items() if name[-3:] != "_on"}
        wishes = [typed_wish(service, form, known) for service in SERVICES]
        if not visit.person.may_everywhere("administrator"):
            for wish in wishes:
                _keep_own_identity(wish, of_flow)
        return _made(connection, visit, wishes, of_flow, on=on)


def _keep_own_identity(wish: Wish, of_flow: Sequence[Stream]) -> None:
    """Refuse to present what the server's environment has at an endpoint that was named."""
    place = wish.destination
    if not wish.on or wish.credential or place is None or not wish.endpoint or place.is_aws:
        return
    if any(
        each.stream_id == wish.stream_id
        and each.credential_id is None
        and each.endpoint_url == wish.endpoint
        for each in of_flow
    ):
        return  # an administrator has set it so
    wish.errors["credential"] = (
        "Without one the server would present its own identity at that endpoint. Choose a "
        "credential, or ask an administrator."
    )


def _made(
    connection: Any, visit: Visit, wishes: Sequence[Wish], of_flow: Sequence[Stream], *, on: bool
) -> Dialog:
    flow_id = visit.flow_id
    plans = [plan(wish, of_flow) for wish in wishes]
    shown_ids = {wish.stream_id for wish in wishes} | {
        each.target.stream_id for each in plans if each.target
    }
    return Dialog(
        flow_id, plans, credentials_for(connection, visit.person.flows),
        {each.wish.service: key_preview(connection, flow_id, each.wish, each.target)
         for each in plans},
        [each for each in of_flow if each.stream_id not in shown_ids and each.enabled], on,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Tried:
    """A place to try that is no stream yet."""

    flow_id: str
    destination: Any


def _tried(
    visit: Visit, flow_id: str, each: Plan
) -> tuple[str, StoreTest | None, AuditStoreError | None]:
    from exporters.stores import open_store  # noqa: PLC0415  # the composition root

    wish = each.wish
    assert wish.destination is not None  # noqa: S101  # no errors, so there is a place
    name = SERVICE_NAMES[wish.service]
    try:
        secret = wish.secret
        if secret is None and wish.credential:
            with visit.reading() as connection:
                kept = credentials.get_by_name(connection, wish.credential)
                secret = credentials.secret_of(connection, visit.vault, kept.credential_id)
        options = each.target.options if each.target else {}
        store = open_store(
            wish.destination, region=wish.region or None, secret=secret, options=options
        )
        with closing(store):
            return (
                name,
                try_store(store, _Tried(flow_id, wish.destination), datetime.now(UTC)),
                None,
            )
    except AuditStoreError as error:
        return name, None, error


def _answer(visit: Visit, made: Dialog, template: str, status: int = 200) -> Response:
    names = {
        "service_names": SERVICE_NAMES, "container_names": CONTAINER_NAMES,
        "secret_fields": SECRET_FIELDS,
    }  # fmt: skip
    if not visit.is_fragment:
        return shown(
            visit, "stream_page.html", status=status, dialog=made,
            frame=frame(visit, made.flow_id), **names,
        )  # fmt: skip
    return shown(visit, template, status=status, dialog=made, **names)
