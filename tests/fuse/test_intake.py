"""Which task reads the next request. The device is a socket that keeps messages apart; pyfuse3's loop is the few lines of `Loop`."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter

import pyfuse3
import pytest
import trio
import trio.testing

from s3mount.fuse import control
from s3mount.fuse.intake import READ, Intake, in_place_of_trio
from tests.fuse import taken_back
from tests.fuse.conftest import NewMount
from tests.fuse.mounting import until

Handler = Callable[[bytes], Awaitable[None]]

ENDLESS_S = 3600.0


class Loop:
    """Tasks that read and serve as pyfuse3's do. `kernel` is the other end of the device."""

    def __init__(self, intake: Intake) -> None:
        self.kernel, self.device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.device.setblocking(False)
        self.intake = intake
        self.served: list[tuple[str, bytes]] = []
        self.before_reading: Callable[[], object] = lambda: None

    async def run(self, tasks: int, handler: Handler) -> None:
        async with pyfuse3.trio.open_nursery() as nursery:  # type: ignore[attr-defined]
            for number in range(tasks):
                nursery.start_soon(self.serve, handler, name=f"task {number}")

    async def serve(self, handler: Handler) -> None:
        """One task's work."""
        lowlevel = pyfuse3.trio.lowlevel  # type: ignore[attr-defined]
        while True:
            try:
                async with pyfuse3.trio.Lock():  # type: ignore[attr-defined]
                    await lowlevel.wait_readable(self.device.fileno())
            except trio.ClosedResourceError:
                return
            self.before_reading()
            message = self.device.recv(100)  # BlockingIOError: there is no such request any more
            self.served.append((lowlevel.current_task().name, message))
            await handler(message)

    def send(self, *messages: bytes) -> None:
        for message in messages:
            self.kernel.send(message)

    def end(self) -> None:
        pyfuse3.trio.lowlevel.notify_closing(self.device.fileno())  # type: ignore[attr-defined]

    def close(self) -> None:
        self.kernel.close()
        self.device.close()


MakeLoop = Callable[..., Loop]


class Rounds(trio.abc.Instrument):
    """Counts the event loop's rounds."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


@pytest.fixture
def made() -> Iterator[MakeLoop]:
    """Makes a loop whose intake stands in the place of trio."""

    def make(*, moment_s: float = 0.0, turn_s: float = ENDLESS_S) -> Loop:
        loop = Loop(Intake(moment_s=moment_s, turn_s=turn_s))
        stack.enter_context(in_place_of_trio(loop.intake))
        stack.callback(loop.close)
        return loop

    with ExitStack() as stack:
        yield make
    assert pyfuse3.trio is trio  # type: ignore[attr-defined]


async def ending(loop: Loop, message: bytes) -> None:
    if message == b"end":
        loop.end()


def test_pyfuse3_has_the_door_and_was_read() -> None:
    assert pyfuse3.trio is trio  # type: ignore[attr-defined]
    assert pyfuse3.__version__.startswith(READ)  # else: read its main loop, and run the tests in this folder


async def rounds_of(loop: Loop, *messages: bytes, tasks: int) -> list[int]:
    """In which round of the event loop each of *messages* is served; the last of them is the end."""
    rounds, seen = Rounds(), list[int]()

    async def handler(message: bytes) -> None:
        seen.append(rounds.count)
        await ending(loop, message)

    loop.send(*messages)
    trio.lowlevel.add_instrument(rounds)
    await loop.run(tasks, handler)
    trio.lowlevel.remove_instrument(rounds)
    return seen


async def test_requests_that_wait_for_nothing_are_served_in_one_round_of_the_loop(made: MakeLoop) -> None:
    loop = made()
    seen = await rounds_of(loop, b"a", b"b", b"c", b"end", tasks=3)
    assert [message for _, message in loop.served] == [b"a", b"b", b"c", b"end"]
    assert len({name for name, _ in loop.served}) == 1
    assert len(set(seen)) == 1


async def test_a_request_that_comes_in_a_moment_needs_no_round_either(made: MakeLoop) -> None:
    loop, rounds, seen = made(moment_s=ENDLESS_S), Rounds(), list[int]()
    trio.lowlevel.add_instrument(rounds)

    async def handler(message: bytes) -> None:
        seen.append(rounds.count)
        if len(seen) == 1:
            await trio.lowlevel.checkpoint()
            trio.lowlevel.start_thread_soon(lambda: loop.send(b"end"), lambda _: None)
            seen[0] = rounds.count
        await ending(loop, message)

    loop.send(b"a")
    await loop.run(1, handler)
    trio.lowlevel.remove_instrument(rounds)
    assert len(set(seen)) == 1


async def test_others_get_their_turn_however_many_requests_there_are(made: MakeLoop) -> None:
    seen = await rounds_of(made(turn_s=0.0), b"a", b"b", b"c", b"end", tasks=2)
    assert len(seen) == 4
    assert seen == sorted(set(seen))


async def test_a_round_has_one_turn_however_many_tasks_go_on_in_it(made: MakeLoop) -> None:
    turn_s, there, seen, rounds = 0.002, trio.Event(), list[int](), Rounds()
    loop = made(turn_s=turn_s)
    trio.lowlevel.add_instrument(rounds)

    async def handler(message: bytes) -> None:
        if message == b"waits":
            await there.wait()
            return
        seen.append(rounds.count)
        until = perf_counter() + turn_s
        while perf_counter() < until:
            there.set()
        await ending(loop, message)

    loop.send(*[b"waits"] * 4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run, 6, handler)
        await trio.testing.wait_all_tasks_blocked()
        loop.send(*[b"long"] * 4, b"end")
    trio.lowlevel.remove_instrument(rounds)
    assert max(seen.count(number) for number in seen) == 1


async def test_while_one_waits_another_one_reads(made: MakeLoop) -> None:
    loop, there = made(), trio.Event()

    async def handler(message: bytes) -> None:
        if message == b"waits":
            await there.wait()
            loop.end()
        else:
            there.set()

    loop.send(b"waits", b"helps")
    await loop.run(2, handler)
    assert [message for _, message in loop.served] == [b"waits", b"helps"]
    assert len({name for name, _ in loop.served}) == 2


async def test_what_a_request_waits_for_is_not_held_up_by_a_wait_for_the_next_one(made: MakeLoop) -> None:
    loop = made(moment_s=ENDLESS_S)

    async def handler(message: bytes) -> None:
        if message == b"a":
            for _ in range(3):
                await trio.to_thread.run_sync(int)
            loop.send(b"end")
        await ending(loop, message)

    loop.send(b"a")
    with trio.fail_after(60):
        await loop.run(3, handler)
    assert [message for _, message in loop.served] == [b"a", b"end"]


@pytest.mark.parametrize("seed", range(5))
async def test_each_request_is_read_once_whoever_waits_for_what(made: MakeLoop, seed: int) -> None:
    loop, chance, sent = made(turn_s=0.0001), random.Random(seed), [b"%d" % number for number in range(100)]

    async def handler(message: bytes) -> None:
        for _ in range(chance.choice((0, 0, 1, 2, 7))):
            await trio.lowlevel.checkpoint()
        if len(loop.served) == len(sent):
            loop.end()

    async def feed() -> None:
        for message in sent:
            loop.send(message)
            for _ in range(chance.choice((0, 0, 1, 5))):
                await trio.lowlevel.checkpoint()
                loop.intake.check()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed)
            nursery.start_soon(loop.run, 4, handler)
    assert [message for _, message in loop.served] == sent
    assert loop.intake.taken_back == 0


async def test_a_request_that_is_taken_back_before_it_is_read_does_no_harm(made: MakeLoop) -> None:
    loop = made()

    def take_back() -> None:
        loop.before_reading = lambda: None
        loop.device.recv(100)

    loop.before_reading = take_back
    loop.send(b"taken back")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run, 2, partial(ending, loop))
        await trio.testing.wait_all_tasks_blocked()
        assert loop.intake.taken_back == 1
        loop.intake.check()
        loop.send(b"end")
    assert [message for _, message in loop.served] == [b"end"]


@pytest.mark.fuse
def test_a_mount_answers_after_whoever_asked_was_killed_before_the_question_was_read(
    new_mount: NewMount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(taken_back.FOLDER, str(tmp_path))
    mount = new_mount(program=(taken_back.__file__,))
    (tmp_path / "armed").touch()
    asking = subprocess.Popen(["stat", mount.path / "nothing"], stderr=subprocess.DEVNULL)
    until((tmp_path / "seen").exists)
    asking.kill()
    asking.wait()
    until((tmp_path / "gone").exists)
    assert control.ask(mount.path, owner=os.getuid(), do="status") is not None  # nothing else is asked through the kernel


@pytest.mark.fuse
@pytest.mark.parametrize(
    ("first", "blocks"),
    [
        ("", False),
        ("import os; os.environ['PATH'] = '/nowhere'", False),  # no fusermount3: libfuse mounts, nobody shakes hands
        ("import pyfuse3; pyfuse3.__version__ = '3.6.0'", True),
    ],
)
def test_the_device_does_not_block_but_for_a_pyfuse3_that_was_not_read(new_mount: NewMount, first: str, blocks: bool) -> None:
    if "PATH" in first and os.geteuid() != 0:
        pytest.skip("only root can mount without fusermount3")
    mount = new_mount(program=("-c", f"{first}\nfrom s3mount.cli import main; main.main()"))
    (mount.path / "file").write_text("x")
    assert (mount.path / "file").read_text() == "x"
    process = Path(f"/proc/{mount.process.pid}")
    devices = [entry.name for entry in (process / "fd").iterdir() if is_device(entry)]
    said = [re.search(r"flags:\s*(\d+)", (process / "fdinfo" / name).read_text()) for name in devices]
    assert [bool(int(flags[1], 8) & os.O_NONBLOCK) for flags in said if flags] == [not blocks]


def is_device(descriptor: Path) -> bool:
    """False as well for one that the process has closed since it was listed."""
    try:
        return os.readlink(descriptor) == "/dev/fuse"
    except FileNotFoundError:
        return False


def test_a_pyfuse3_that_was_not_read_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyfuse3, "__version__", "3.6.0")
    with in_place_of_trio(Intake(moment_s=0.0)):
        assert pyfuse3.trio is trio  # type: ignore[attr-defined]


async def test_when_the_one_who_listens_is_cancelled_another_one_does(made: MakeLoop) -> None:
    loop, scope = made(), trio.CancelScope()

    async def listens() -> None:
        with scope:
            await pyfuse3.trio.lowlevel.wait_readable(loop.device.fileno())  # type: ignore[attr-defined]

    async with pyfuse3.trio.open_nursery() as nursery:  # type: ignore[attr-defined]
        nursery.start_soon(listens, name="listens")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(loop.serve, partial(ending, loop), name="idle")
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        loop.intake.check()
        loop.send(b"end")
    assert loop.served == [("idle", b"end")]


async def test_idle_tasks_can_be_cancelled(made: MakeLoop) -> None:
    loop = made()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.run, 3, partial(ending, loop))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    loop.intake.check()
