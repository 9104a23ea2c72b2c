"""Credentials: which there are, what uses them, and a new secret for one."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from auditstore import credentials, streams
from auditstore.cli.credential_trial import insist_on_tried, refuse_failures, try_secret
from auditstore.errors import AuditStoreError, ConfigurationError
from auditstore.secret_fields import checked
from auditstore.web.console.pages import Visit, moved, shown
from auditstore.web.console.stream_wish import SECRET_FIELDS, SERVICE_NAMES

_LABELS: Final = {
    "access_key_id": "Access key id", "secret_access_key": "Secret access key",
    "connection_string": "Connection string",
}  # fmt: skip


def overview(visit: Visit) -> Response:
    """The credentials; never their secrets."""
    return _shown(visit, "", {}, None)


def rotate(visit: Visit) -> Response:
    """Give a credential a new secret, once it is seen to work wherever the old one is used."""
    name = visit.form.get("name", "")
    errors: dict[str, str] = {}
    try:
        with visit.reading() as connection:
            found = credentials.get_by_name(connection, name)
            using = streams.find(connection, credential_id=found.credential_id)
        given = {
            field: visit.form.get(field, "")
            for field in SECRET_FIELDS["s3" if found.kind == "s3" else "azure"]
        }
        errors = {
            field: f"Enter the {_LABELS[field].lower()}."
            for field, value in given.items() if not value.strip()
        }  # fmt: skip
        if errors:
            return _shown(visit, name, errors, None)
        secret = checked(found.kind, given)
        refuse_failures(name, try_secret(visit, secret, using))
        with visit.changing() as connection:
            credentials.rotate(connection, visit.vault, name, secret, visit.actor)
            now_using = streams.find(connection, credential_id=found.credential_id)
            insist_on_tried(name, tried=using, using=now_using)
    except AuditStoreError as error:
        return _shown(visit, name, errors, error)
    return moved(visit, "/credentials", done=name)


def remove(visit: Visit) -> Response:
    """Forget a credential that no stream uses."""
    name = visit.form.get("name", "")
    try:
        with visit.changing() as connection:
            credentials.remove(connection, name, visit.actor)
    except ConfigurationError as error:
        return _shown(visit, name, {}, error)
    return moved(visit, "/credentials", removed=name)


def _shown(
    visit: Visit, opened: str, errors: dict[str, str], refusal: AuditStoreError | None
) -> Response:
    with visit.reading() as connection:
        found = credentials.find(connection)
        using: dict[int, list[streams.Stream]] = {}
        for stream in streams.find(connection):
            if stream.credential_id is not None:
                using.setdefault(stream.credential_id, []).append(stream)
    return shown(
        visit, "credentials.html", status=422 if errors or refusal else 200, found=found,
        using=using, opened=opened, errors=errors, refusal=refusal, labels=_LABELS,
        secret_fields=SECRET_FIELDS, service_names=SERVICE_NAMES,
        done=visit.query.get("done", ""), removed=visit.query.get("removed", ""),
    )  # fmt: skip
