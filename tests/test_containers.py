"""The container files say nothing that is not so: no engine is needed to see that."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from auditstore.cli import main

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
ONCE = {name for name, service in SERVICES.items() if service.get("restart") == "no"}


def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, continued lines joined: (word, the rest)."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines()]
    return [
        (line.split(None, 1)[0].upper(), line.split(None, 1)[1])
        for line in lines
        if line and not line.startswith("#")
    ]


def commands() -> Iterator[list[str]]:
    """Every command line of auditstore in the two files, as a list of words."""
    for service in SERVICES.values():
        yield from (
            words
            for words in (
                service.get("command", []),
                service.get("healthcheck", {}).get("test", [""])[1:],
            )
            if words[:1] == ["auditstore"]
        )
    for instruction, rest in dockerfile():
        if instruction == "CMD":
            yield json.loads(rest)
    for line in (ROOT / "docker-compose.yml").read_text().splitlines():
        if line.startswith("#") and "exec exporter auditstore" in line:
            yield shlex.split(line[line.index("auditstore ") :])


def test_there_are_commands_to_check() -> None:
    """The search below finds the daemon, twice, and the migration."""
    found = [" ".join(words) for words in commands()]
    daemon = "auditstore export run"
    assert {daemon, f"{daemon} --metrics-listen 0.0.0.0:9464", "auditstore migrate"} <= {*found}


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_each_command_exists_with_its_options(words: list[str]) -> None:
    """Each command line names a command of the program, and options that it has."""
    command: click.Command = main
    value_follows = False
    for word in words[1:]:
        if value_follows:
            value_follows = False
        elif word.startswith("-"):
            options = {text: parameter for parameter in command.params for text in parameter.opts}
            option = options[word.partition("=")[0]]
            value_follows = "=" not in word and not getattr(option, "is_flag", False)
        else:
            assert isinstance(command, click.Group)
            found = command.get_command(click.Context(command), word)
            assert found is not None, word
            command = found
    assert not isinstance(command, click.Group)


def test_each_lasting_service_has_a_health_check() -> None:
    """What stays up can be asked whether it is well; what runs once is waited for."""
    for name, service in SERVICES.items():
        if name not in ONCE:
            assert service["healthcheck"]["test"][0] == "CMD", name
    assert {"migrate", "buckets"} == ONCE


def test_each_dependency_is_waited_for_in_the_way_it_ends() -> None:
    """One-shot services are waited for until they are done, the others until healthy."""
    for service in SERVICES.values():
        for name, wait in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if name in ONCE else "service_healthy"
            assert wait == {"condition": expected}, name


def test_the_named_volumes_are_the_declared_ones() -> None:
    """Each volume that a service mounts is declared, and none is declared for nothing."""
    mounted = [each for service in SERVICES.values() for each in service.get("volumes", [])]
    assert {each.partition(":")[0] for each in mounted} == set(COMPOSE["volumes"])


def test_ports_are_open_to_this_machine_only() -> None:
    """Development passwords are not offered to the network."""
    for service in SERVICES.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_the_program_in_the_compose_file_compiles() -> None:
    """The inline Python that makes the buckets is Python."""
    python, flag, program = SERVICES["buckets"]["command"]
    assert (python, flag) == ("python", "-c")
    compile(program, "buckets", "exec")


def test_each_source_that_is_copied_exists_and_is_sent() -> None:
    """COPY finds its sources: in the tree, and let through by .dockerignore."""
    sources = [
        source
        for instruction, rest in dockerfile()
        if instruction == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    ]
    assert sources
    let_through = (ROOT / ".dockerignore").read_text().splitlines()
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in let_through


def test_the_image_does_not_run_as_root() -> None:
    """The last stage changes to a user of its own before it says what to run."""
    words = [word for word, _ in dockerfile()]
    last_stage = words[len(words) - words[::-1].index("FROM") :]
    assert last_stage.index("USER") < last_stage.index("CMD")
    assert last_stage.count("HEALTHCHECK") == 1
