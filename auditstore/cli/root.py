"""The command ``auditstore`` itself: its subcommands, loaded when one is used."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import click

from auditstore.cli.context import Session
from auditstore.cli.failures import reported
from auditstore.errors import ConfigurationError

#: Subcommand and what it says of itself. Each lives in the module and object of its name.
COMMANDS: Final = {
    "migrate": "Bring the database's schema up to date.",
    "stream": "Streams: which flow's events go where.",
    "credential": "Secrets for the stores, kept encrypted.",
    "export": "Deliver events: as a daemon, or once.",
    "status": "How far each stream is, and what holds it up.",
    "doctor": "Find out what is wrong, and what to do next.",
    "events": "Look at the events in the store.",
    "reconcile": "Compare the outbox, the ledger and the store.",
    "import": "Take in events of LeadConduit or a bucket.",
    "report": "Reports of comparisons that were kept.",
    "serve": "The web console and the HTTP API.",
    "user": "Who may sign in to the console.",
    "key": "Programs' keys to the HTTP API.",
    "demo": "See it all work, with nothing to prepare.",
}

#: Where a command's name is a word of Python's own.
_OBJECTS: Final = {"import": "import_"}


class RootGroup(click.Group):
    """Imports a subcommand when it is asked for, and reports every failure in one way."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """In the order of use, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The subcommand's object, or ``None`` where there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        name = _OBJECTS.get(cmd_name, cmd_name)
        module = f"{__package__}.{name}"
        try:
            command: click.Command = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise ConfigurationError(
                f"the command {cmd_name} is not part of this installation",
                hint="Install a complete auditstore of this version.",
            ) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The one-line helps, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and turn whatever goes wrong into two lines and an exit code."""
        with reported(debug=bool(ctx.params.get("debug"))):
            ctx.obj = Session()
            try:
                return super().invoke(ctx)
            finally:
                ctx.obj.close()


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001  # click's
    if not wanted or ctx.resilient_parsing:
        return
    try:
        number = version("auditstore")
    except PackageNotFoundError:
        number = "(not installed)"
    click.echo(f"auditstore {number}")
    ctx.exit()


@click.group(
    cls=RootGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
    help="Show the version and exit.",
)  # fmt: skip
def main(*, debug: bool) -> None:
    """Keep every lead event in PostgreSQL, deliver it to a bucket exactly once, and prove it.

    AUDITSTORE_DATABASE_URL names the database. Without it, the embedded PostgreSQL is used
    where the extra `embedded` is installed.
    """
