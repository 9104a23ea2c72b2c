"""Render and put, and the store at the other end of the wire: ``exporters.delivery``."""

from __future__ import annotations

from collections.abc import Iterator

from .edits import events, halt, released, shown, turn_over, with_worker
from .settings import Settings
from .state import Key, Rows, State, Step, Stored, Worker


def render(state: State, settings: Settings, number: int) -> Iterator[Step]:
    """Read the range again, and make the object."""
    worker = state.workers[number]
    file = worker.file
    assert file
    last = file.last if settings.guards.frozen_range else state.tables.high
    content = tuple(row for row in state.tables.rows if file.first <= row[0] <= last)
    if settings.guards.frozen_range and len(content) != len(file.rows):
        yield from halt(state, number, f"{shown(file.key)} holds other events than were sealed")
        return
    for variant in (content,) if settings.guards.same_bytes else (content, content[::-1]):
        label = f"renders {events(variant)}"
        yield label, with_worker(state, number, worker._replace(at="put", content=variant))


def put(state: State, _: Settings, number: int) -> Iterator[Step]:
    """The request leaves."""
    worker = state.workers[number]
    assert worker.file
    label = f"sends {shown(worker.file.key)}"
    yield label, with_worker(state, number, worker._replace(at="sent"))


def sent(state: State, settings: Settings, number: int) -> Iterator[Step]:
    """The store takes it and answers; or the worker waits no longer."""
    worker = state.workers[number]
    file, guards = worker.file, settings.guards
    assert file
    after, there = stored(state, settings, file.key, worker.content)
    to = "record" if guards.seal_before_upload or worker.file in state.tables.files else "commit"
    delivered = worker._replace(at=to)
    if there is None:
        yield f"is told that {shown(file.key)} was created", with_worker(after, number, delivered)
    elif there != worker.content and guards.content_compared:
        yield from halt(after, number, f"{shown(file.key)} is there with other content")
    elif not guards.same_is_delivered:
        yield from halt(after, number, f"{shown(file.key)} is there already")
    else:
        # What it will record is what lies there.
        found = f"finds {shown(file.key)} there already"
        yield found, with_worker(after, number, delivered)
    gives_up = turn_over(on_the_wire(released(state, number), settings, worker), number)
    yield f"gives up waiting for an answer about {shown(file.key)}", gives_up


def stored(state: State, settings: Settings, key: Key, content: Rows) -> tuple[State, Rows | None]:
    """The store after a put, and what was there before it."""
    for index, each in enumerate(state.objects):
        if each.key == key:
            if settings.guards.create_only:
                return state, each.content
            objects = list(state.objects)
            objects[index] = Stored(key, content, 2)
            return state._replace(objects=tuple(objects)), None
    objects = tuple(sorted((*state.objects, Stored(key, content))))
    # Where keys are never written again, a late request for this one changes nothing any more.
    wire = tuple(each for each in state.wire if each[0] != key or not settings.guards.create_only)
    return state._replace(objects=objects, wire=wire), None


def on_the_wire(state: State, settings: Settings, worker: Worker) -> State:
    """Nobody waits for the worker's request any more."""
    assert worker.file
    request = (worker.file.key, worker.content)
    taken = any(each.key == worker.file.key for each in state.objects)
    if taken and settings.guards.create_only:
        return state
    return state._replace(wire=tuple(sorted({*state.wire, request})))
