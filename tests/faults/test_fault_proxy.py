"""The fault proxy itself: what it passes on, and what it does to what it does not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.eventually import eventually
from support.fault_proxy import Fault, FaultProxy, running_fault_proxy
from support.fault_wire import ask
from support.stores import Place, new_object, read_all
from support.through_proxy import behind

from auditstore.errors import StoreUnavailable
from auditstore.objects import ObjectStore

KEY = "some/prefix/x"
BODY = b"x" * 5000


@pytest.fixture(params=["s3", "azure"])
def proxy(request: pytest.FixtureRequest) -> FaultProxy:
    """In front of each server in turn."""
    found = request.getfixturevalue(f"{request.param}_proxy")
    assert isinstance(found, FaultProxy)
    return found


@pytest.fixture
def direct(proxy: FaultProxy, request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    """The place itself, past the proxy."""
    opened = place_of(proxy, request).open()
    yield opened
    opened.close()


@pytest.fixture
def through(proxy: FaultProxy, request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    """The same place by way of the proxy, after a first write that settles conditions."""
    opened = behind(proxy, place_of(proxy, request)).open()
    opened.put_if_absent(new_object("some/prefix/first"))
    yield opened
    opened.close()


def place_of(proxy: FaultProxy, request: pytest.FixtureRequest) -> Place:
    found = request.getfixturevalue(f"{proxy.dialect}_place")
    assert isinstance(found, Place)
    return found


def test_bytes_pass_unchanged_both_ways() -> None:
    """What the server gets and what the client gets are the bytes that were sent."""
    question = b"PUT /b/k%20x?y=1 HTTP/1.1\r\nHoSt: a.Name\r\nContent-Length: 3\r\nX: y \r\n\r\nabc"
    answer = b"HTTP/1.1 299 Fine\r\nOdd:   one\r\nodd: two\r\nContent-Length: 2\r\n\r\nok"
    arrived: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as connection:
                arrived.append(connection.recv(65536))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with running_fault_proxy(f"http://127.0.0.1:{listener.getsockname()[1]}", "s3") as proxy:
            port = int(proxy.url.rpartition(":")[2])
            got = ask(("127.0.0.1", port), question, method="PUT", timeout=30)
        thread.join()
    assert arrived == [question]
    assert got.head + got.body == answer


def test_a_store_works_through_it(direct: ObjectStore, through: ObjectStore) -> None:
    """Signatures hold, and every call of the protocol gives what it gives without the proxy."""
    body = bytes(range(256)) * 4000
    assert through.put_if_absent(new_object(KEY, body, metadata={"a-b": "c"})).created
    assert not through.put_if_absent(new_object(KEY, b"other")).created
    assert read_all(through, KEY) == read_all(direct, KEY) == body
    assert through.head(KEY) == direct.head(KEY)
    listed = {info.key: info.size for info in through.list("some/")}
    assert listed == {info.key: info.size for info in direct.list("some/")}
    assert listed[KEY] == len(body)


_LEFT_BEHIND = {
    "refused whole": (Fault(503, "SlowDown"), False),
    "refused in half": (Fault(503, "SlowDown", answer="half"), False),
    "cut on the way in": (Fault(request="cut"), False),
    "corrupted on the way in": (Fault(request="corrupt"), False),
    "cut on the way back": (Fault(answer="cut"), True),
    "torn on the way back": (Fault(answer="torn"), True),
}


def test_what_a_fault_leaves_behind(
    proxy: FaultProxy, direct: ObjectStore, through: ObjectStore
) -> None:
    """A fault on the way in leaves nothing in the store, one on the way back the whole object."""
    rules = {name: proxy.inject(fault, key=name) for name, (fault, _) in _LEFT_BEHIND.items()}

    def fails(name: str) -> None:
        with pytest.raises(StoreUnavailable):
            through.put_if_absent(new_object(f"some/prefix/{name}", BODY))

    with ThreadPoolExecutor(len(rules)) as threads:
        list(threads.map(fails, rules))
    for name, (_, stored) in _LEFT_BEHIND.items():
        key = f"some/prefix/{name}"
        assert read_all(direct, key) == (BODY if stored else None), name
        assert rules[name].hits, name
        rules[name].lift()
        assert through.put_if_absent(new_object(key, BODY)).created != stored, name
        assert read_all(direct, key) == BODY


def test_a_request_that_arrives_late(
    proxy: FaultProxy, direct: ObjectStore, through: ObjectStore
) -> None:
    """It is carried out long after its client gave up, and finds what came meanwhile."""
    rule = proxy.inject(Fault(request="late"), key=KEY, count=1)
    with ThreadPoolExecutor(1) as threads:
        stuck = threads.submit(through.put_if_absent, new_object(KEY, b"late"))
        eventually(lambda: rule.hits)
        assert through.put_if_absent(new_object(KEY, b"in time")).created
        rule.lift()
        assert not stuck.result().created
    assert read_all(direct, KEY) == b"in time"


def test_a_server_that_goes_away_and_comes_back(proxy: FaultProxy, through: ObjectStore) -> None:
    """Connections are refused meanwhile, on the same port."""
    proxy.go_away()
    with pytest.raises(StoreUnavailable):
        through.head(KEY)
    proxy.come_back()
    assert through.head(KEY) is None
