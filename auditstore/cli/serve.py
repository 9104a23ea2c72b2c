"""``auditstore serve``: the web console and the HTTP API."""

from __future__ import annotations

from importlib.util import find_spec

import click

from auditstore import database
from auditstore.cli.context import Session
from auditstore.cli.display import note, show
from auditstore.destinations import is_loopback
from auditstore.errors import ConfigurationError


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
              help="Where to listen; 0.0.0.0 is every interface.")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
@click.pass_obj
def serve(session: Session, *, host: str, port: int) -> None:
    """The web console and the HTTP API, until it is told to stop.

    It needs a user to sign in as: `auditstore user add NAME --role administrator`; and for
    programs a key: `auditstore key add NAME --role viewer`.
    """
    if any(find_spec(name) is None for name in ("uvicorn", "argon2", "fastapi")):
        raise ConfigurationError(
            "the console is not installed", hint="Run: pip install 'auditstore[console]'"
        )
    import uvicorn  # noqa: PLC0415  # an extra

    from auditstore import accounts  # noqa: PLC0415  # an extra's hashes
    from auditstore.web.app import create_app  # noqa: PLC0415  # an extra

    with session.reading() as connection:
        users = accounts.find_users(connection)
    if not users:
        note("There is no user yet: auditstore user add NAME --role administrator")
    if not is_loopback(host):
        note("Passwords and leads would pass in clear text: let a proxy with TLS stand before it")
    engine = database.create_engine(
        session.database_url, application_name="auditstore console", hide_parameters=True,
        pool_size=10,
    )  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    show(f"Console: http://{shown}:{port}/")
    try:
        # What a proxy on this machine says of scheme and address counts; nobody else's word does.
        uvicorn.run(
            create_app(engine, session.vault), host=host, port=port, log_level="warning",
            proxy_headers=True, forwarded_allow_ips="127.0.0.1,::1", server_header=False,
        )  # fmt: skip
    finally:
        engine.dispose()
