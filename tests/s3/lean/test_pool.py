"""Connections kept and given up, by a clock that the test turns."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from s3mount.errors import Unavailable
from s3mount.store.s3.lean.connection import Connection, Patience
from s3mount.store.s3.lean.pool import IDLE_S, Pool
from tests.s3.lean.scripted import Scripted, ok, scripted
from tests.wire.certificate import make_certificate

ASK = b"GET / HTTP/1.1\r\n\r\n"


def pool_to(server: Scripted, limit: int = 4) -> Pool:
    return Pool("127.0.0.1", server.port, None, Patience(), limit=limit)


async def use(pool: Pool, server: Scripted) -> Connection:
    """One whole exchange on whichever connection comes."""
    server.plan.append([ok(b"body")])
    async with pool.place():
        connection = await pool.take()
        head = await connection.ask(ASK)
        await connection.receive(head, memoryview(bytearray(4)))
        pool.put(connection, keep=head.keep)
        pool.check()
    return connection


async def test_a_connection_is_kept_until_it_was_idle_for_too_long(mock_clock: MockClock) -> None:
    async with scripted() as server:
        pool = pool_to(server)
        first = await use(pool, server)
        mock_clock.jump(IDLE_S - 1)
        assert await use(pool, server) is first
        mock_clock.jump(IDLE_S + 1)
        assert await use(pool, server) is not first
        assert server.connections == 2
        pool.close()


async def test_what_was_idle_for_too_long_is_closed_though_nobody_asks(mock_clock: MockClock) -> None:
    async with scripted() as server:
        pool = pool_to(server)
        connection = await use(pool, server)
        mock_clock.jump(IDLE_S - 1)
        pool.drop_old()
        assert connection.fileno >= 0
        mock_clock.jump(2)
        pool.drop_old()
        assert connection.fileno < 0
        pool.close()


async def test_the_last_used_comes_first_and_the_others_grow_old(mock_clock: MockClock) -> None:
    async with scripted() as server:
        pool = pool_to(server)
        async with pool.place(), pool.place():
            pair = [await pool.take(), await pool.take()]
            for connection in pair:
                connection.used, connection._left = True, 0
                pool.put(connection, keep=True)
        for _ in range(3):
            mock_clock.jump(IDLE_S * 0.4)
            assert await use(pool, server) is pair[1]
        assert pair[0].fileno < 0
        pool.close()


async def test_what_was_not_received_to_its_end_is_not_kept() -> None:
    async with scripted() as server:
        pool = pool_to(server)
        server.plan = [[ok(b"body")]]
        async with pool.place():
            connection = await pool.take()
            head = await connection.ask(ASK)
            pool.put(connection, keep=head.keep)
        assert connection.fileno < 0
        assert await use(pool, server) is not connection
        pool.close()


@pytest.mark.slow
async def test_a_server_that_ends_tls_in_good_order_is_seen_to_be_gone(tmp_path: Path) -> None:
    """Regression: its last words were taken for a session ticket, so a change was sent to nobody, and its outcome was unknown."""
    certificate, key = make_certificate(tmp_path)
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate, key)
    gone = trio.Event()

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        for _ in range(2):
            await stream.receive_some()
            await stream.send_all(ok(b"body"))
        await stream.aclose()
        gone.set()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(functools.partial(trio.serve_ssl_over_tcp, serve, 0, theirs, host="127.0.0.1"))
        port = listeners[0].transport_listener.socket.getsockname()[1]
        pool = Pool("127.0.0.1", port, ssl.create_default_context(cafile=certificate), Patience(), limit=4)
        connection = await pool.take()
        for _ in range(2):
            assert not connection.looks_dead()
            head = await connection.ask(ASK)
            await connection.receive(head, memoryview(bytearray(4)))
        await gone.wait()
        assert connection.looks_dead()
        nursery.cancel_scope.cancel()
    connection.close()


async def test_a_closed_pool_gives_nothing_and_takes_nothing_back() -> None:
    async with scripted() as server:
        pool = pool_to(server)
        async with pool.place():
            connection = await pool.take()
            pool.close()
            pool.close()
            pool.put(connection, keep=True)
            assert connection.fileno < 0
            with pytest.raises(Unavailable):
                await pool.take()


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["use", "break", "jump"]), st.integers(1, 6)), max_size=12), st.integers(1, 3))
def test_the_pool_holds_its_invariants_whatever_is_done(steps: list[tuple[str, int]], limit: int) -> None:
    clock = MockClock()

    async def run() -> None:
        async with scripted() as server:
            pool = pool_to(server, limit)

            async def broken() -> None:
                async with pool.place():
                    pool.put(await pool.take(fresh=True), keep=False)
                    pool.check()

            for what, count in steps:
                if what == "jump":
                    clock.jump(count * IDLE_S / 4)
                    continue
                async with trio.open_nursery() as nursery:
                    for _ in range(count):
                        nursery.start_soon(use, pool, server) if what == "use" else nursery.start_soon(broken)
                pool.check()
            assert server.most <= limit + 1
            pool.close()

    trio.run(run, clock=clock)
