"""The socket beside a mount: a question is answered however long that takes, and none takes the mount down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio
import trio.testing

from s3mount.errors import Unavailable
from s3mount.fuse.control import PATIENCE_S, Answer, Control
from tests.conftest import ExpectLogs


async def slow(request: Mapping[str, Any]) -> Mapping[str, Any]:
    await trio.sleep(100 * PATIENCE_S)
    return {"asked": request["key"]}


async def refuses(request: Mapping[str, Any]) -> Mapping[str, Any]:
    raise Unavailable("Not now.")


async def fails(request: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"answer": object()}


VERBS: dict[str, Answer] = {"slow": slow, "refuses": refuses, "fails": fails}


async def asked(line: bytes) -> bytes:
    """What a mount says to *line*."""
    ours, theirs = trio.socket.socketpair()
    said = b""
    async with trio.open_nursery() as nursery, trio.SocketStream(ours) as stream:
        nursery.start_soon(Control(Path("/nowhere"), VERBS)._converse, trio.SocketStream(theirs))
        await stream.send_all(line)
        while more := await stream.receive_some():
            said += more
    return said


async def test_an_errand_may_take_its_time(autojump_clock: trio.testing.MockClock) -> None:
    """Regression: to store a file was given up after ten seconds, each time that somebody asked for it."""
    assert json.loads(await asked(b'{"do": "slow", "key": "k"}\n')) == {"done": {"asked": "k"}}


async def test_whoever_says_nothing_is_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    assert await asked(b"") == b""
    assert trio.current_time() >= PATIENCE_S


async def test_a_refusal_is_told(autojump_clock: trio.testing.MockClock) -> None:
    assert json.loads(await asked(b'{"do": "refuses"}\n')) == {"failed": "Not now."}


async def test_no_question_takes_the_mount_down(autojump_clock: trio.testing.MockClock, expect_logs: ExpectLogs) -> None:
    """Regression: brackets in brackets, a hundred thousand deep, and an answer that is no JSON."""
    expect_logs("could not be answered")
    for line in (b"{", b"[]", b'{"do": []}', b'{"do": "none"}', b"[" * 100_000, b'{"do": "fails"}'):
        assert "failed" in json.loads(await asked(line + b"\n"))
