"""One mount, from its store to its last commit.

Owns: the order of everything: store, file system, kernel session, signals, the end; the options for the kernel; the runtime record.
Must not know: which store it is (it is handed a way to open one), terminals, command lines.

    open store -> claim record -> mount, INIT (see handshake) -> main loop, answering -> ready -> ...
    ... -> main loop over -> kernel session closed -> early-answered releases done -> Filesystem.aclose -> store closed -> record finished

How the main loop ends:
- somebody unmounts: the kernel has written every dirty page back before; what was open is committed by `Filesystem.aclose`;
- the first SIGTERM, SIGINT or SIGHUP: the kernel is asked for its dirty pages, then we unmount. A mount that is in use is detached,
  asked once more, and ended under its users: what they write later fails with ENOTCONN. With --write-back all of that takes no longer than
  --flush-timeout: who waits in a `close` for room by then is told so, and what he wrote is kept aside;
- a second signal, at any time from then on: stop now. What was not committed is lost, and the error says so;
- a defect in the loop itself: as an unmount, and the defect is raised in the end.

I1  Nothing is sent to the kernel after the session is closed; the invalidation thread ends before.
I2  `Filesystem.aclose` runs after the last handler, also after failures; what it raises reaches the record and the caller.
I3  The main loop starts as many tasks as there are requests: a request that waits for its commit never holds up another one.
"""

from __future__ import annotations

import errno
import gc
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyfuse3
import trio

from s3mount.errors import Busy, S3MountError, Unavailable
from s3mount.fs.filesystem import Filesystem
from s3mount.fs.options import FsOptions
from s3mount.fuse import mountpoint, runtime, tuning, utab
from s3mount.fuse.control import Answer, Control, path_in
from s3mount.fuse.deadline import Bounded
from s3mount.fuse.giving_back import give_back_now_and_then
from s3mount.fuse.handshake import Handshake, can_shake_hands
from s3mount.fuse.intake import MOMENT_S, Intake, in_place_of_trio
from s3mount.fuse.invalidate import Invalidator
from s3mount.fuse.notify import notify
from s3mount.fuse.occupied import covered, occupied
from s3mount.fuse.operations import Deadlines, Operations
from s3mount.store.api import ObjectStore

log = logging.getLogger(__name__)

OpenStore = Callable[[], AbstractAsyncContextManager[ObjectStore]]

# Each waiting request is a task: some 10 KiB that are touched, and a buffer for 1 MiB that mostly is not. Nobody has so many processes.
MAX_TASKS = 10_000
# Idle tasks kept for the next request. They take turns, each with a buffer of its own: more of them only cool the processor's cache
# (eight instead of two cost a fifth of the lookups per second).
MIN_TASKS = 2

# A thread inside the kernel that does not come back in this time will not come back at all.
INVALIDATOR_PATIENCE_S = 10.0

# The background work of the file system must go on after a defect in it; not as a busy loop.
RESTART_S = 5.0

# While a commit takes its time the service manager is asked, this often, to wait this much longer.
EXTEND_EVERY_S = 10.0
EXTEND_BY_S = 60

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """What is mounted where, and how. `mountpoint` is resolved; `kernel` are further options for the kernel, as libfuse takes them."""

    source: str
    mountpoint: Path
    fs: FsOptions
    allow_other: bool = False
    kernel: tuple[str, ...] = ()
    deadlines: Deadlines = field(default_factory=Deadlines)
    about: Mapping[str, object] = field(default_factory=dict)
    """What else whoever asks the mount is told of how it was made; nothing secret."""
    tell: Callable[[ObjectStore], Mapping[str, object]] = lambda store: {}
    """What whoever asks is told of the store."""
    errands: Callable[[ObjectStore], Mapping[str, Answer]] = lambda store: {}
    """What else may be asked of the mount, by the word for it."""
    let_go: Callable[[ObjectStore], int] = lambda store: 0
    """Has the store forget what it need not know any more; how many bytes that gives."""


def run_mount(open_store: OpenStore, options: MountOptions, *, ready: Callable[[], None]) -> None:
    """Serve *options* until it is unmounted and everything is committed; *ready* is called once the mount answers.

    Raises what kept the mount from starting, or what could not be committed.
    """
    record = runtime.claim(options.mountpoint)
    record.describe(source=options.source, mountpoint=options.mountpoint)
    mount = Mount(options, ready=ready, control=path_in(record.path.parent, options.mountpoint))
    failure: str | None = None
    try:
        trio.run(mount.run, open_store)
    except BaseException as error:
        if mount.was_ready or not _is_told(error):
            failure = _sentence(error)
            log.error("The mount of %s ended with: %s", options.source, failure, exc_info=None if _is_told(error) else error)
        raise
    finally:
        utab.forget(options.mountpoint)
        record.finish(failure, kept=mount.kept)


class Mount:
    """The life of one mount. `was_ready` says whether it ever answered, `kept` how many files it could not store and has kept aside."""

    def __init__(self, options: MountOptions, *, ready: Callable[[], None], control: Path) -> None:
        self.was_ready = False
        self.kept = 0
        self._options = options
        self._ready = ready
        self._control = control
        self._began_ns = time.time_ns()
        self._finishing = False
        self._detached = False
        self._end = math.inf
        self._commits: Bounded | None = None
        self._stop_now = trio.CancelScope()

    async def run(self, open_store: OpenStore) -> None:
        async with open_store() as store:
            with self._stop_now:
                await self._run(store)
        if self._stop_now.cancelled_caught:
            raise Unavailable("stopped by a second signal before everything was committed")

    async def _run(self, store: ObjectStore) -> None:
        options = self._options
        shared = options.allow_other or not {"allow_other", "allow_root"}.isdisjoint(options.kernel)
        invalidator = Invalidator(partial(occupied, options.mountpoint, shared=shared), partial(covered, options.mountpoint))
        fs = Filesystem(store, self._options.fs, invalidate=invalidator)
        async with trio.open_nursery() as attendants:
            attendants.start_soon(self._heed_signals, attendants, store.capabilities.deferred)
            attendants.start_soon(Control(self._control, self._verbs(fs, store)).serve)
            try:
                await fs.recover()
                async with trio.open_nursery() as background:
                    background.start_soon(_keep_running, fs)
                    background.start_soon(give_back_now_and_then, partial(options.let_go, store))
                    await self._serve(fs, invalidator)
                    background.cancel_scope.cancel()
            finally:
                self._finishing = True
                attendants.start_soon(_ask_for_patience)
                try:
                    await fs.aclose(by=self._end)
                finally:
                    self.kept = fs.outstanding().kept
            attendants.cancel_scope.cancel()

    async def _serve(self, fs: Filesystem, invalidator: Invalidator) -> None:
        """From init until every request, and every release that was answered early, is done."""
        async with trio.open_nursery() as requests:
            options = self._options
            operations = Operations(fs, requests, ttl_s=options.fs.metadata_ttl_s, xattrs=options.fs.xattrs, deadlines=options.deadlines)
            self._commits = operations.commits
            self._commits.end_by(self._end)
            handshake = _init(operations, options)
            try:
                async with trio.open_nursery() as loop:
                    loop.start_soon(self._announce)
                    if handshake is not None:
                        loop.start_soon(handshake.finish)
                    with in_place_of_trio(Intake(moment_s=MOMENT_S if fs.is_near or fs.commits_here else 0.0)):
                        await _main_loop()
            finally:
                _close(invalidator, handshake, mountpoint_left=None if self._detached else options.mountpoint)

    async def _announce(self) -> None:
        """Ready, once a request has gone all the way: into the kernel, to our handlers and back."""
        path = self._options.mountpoint
        try:
            status = await trio.to_thread.run_sync(os.stat, path, abandon_on_cancel=True)
        except OSError as error:
            raise Unavailable(f"{self._options.source} does not answer at {path}: {error.strerror}") from None
        log.info("%s is mounted on %s", self._options.source, path)
        tuning.raise_limits(f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}")
        await trio.to_thread.run_sync(utab.note, shown_source(self._options), path)
        # What is there by now stays: looking through it again and again took 6 % of the processor time of a long read.
        gc.freeze()
        self.was_ready = True
        self._ready()
        notify(READY="1", STATUS=f"{self._options.source} on {path}")

    # -- questions ------------------------------------------------------------------------

    def _verbs(self, fs: Filesystem, store: ObjectStore) -> dict[str, Answer]:
        """What may be asked of this mount, by the word for it."""

        async def status(request: Mapping[str, Any]) -> Mapping[str, Any]:
            return {**self._standing(), **asdict(fs.outstanding()), "store": self._options.tell(store)}

        async def retry(request: Mapping[str, Any]) -> Mapping[str, Any]:
            return {"failed": await fs.retry(request["keys"])}

        async def discard(request: Mapping[str, Any]) -> Mapping[str, Any]:
            return {"discarded": await fs.discard(request["keys"])}

        return {**self._options.errands(store), "status": status, "retry": retry, "discard": discard}

    def _standing(self) -> dict[str, object]:
        options = self._options
        return {
            "source": options.source,
            "mountpoint": str(options.mountpoint),
            "pid": os.getpid(),
            "began_ns": self._began_ns,
            "ending": self._finishing,
            "read_only": options.fs.read_only,
            "options": dict(options.about),
        }

    # -- the end --------------------------------------------------------------------------

    async def _heed_signals(self, attendants: trio.Nursery, deferred: bool) -> None:
        with trio.open_signal_receiver(*SIGNALS) as received:
            heard = 0
            async for number in received:
                heard += 1
                if heard > 1:
                    log.warning("%s again: stopping now, what is not committed yet is lost", signal.Signals(number).name)
                    self._stop_now.cancel()
                    return
                log.info("%s: committing what is open, then unmounting", signal.Signals(number).name)
                if not self._finishing:
                    if deferred:
                        self._end_by(trio.current_time() + self._options.fs.flush_timeout_s)
                    attendants.start_soon(_ask_for_patience)
                    attendants.start_soon(self._take_off)

    def _end_by(self, moment: float) -> None:
        """Nobody waits any longer for a store that gets commits later, be he in a `close` just now."""
        self._end = moment
        if self._commits is not None:
            self._commits.end_by(moment)

    async def _take_off(self) -> None:
        path = self._options.mountpoint
        try:
            await _in_thread(_push_pages, path)
            await _in_thread(mountpoint.unmount, path)
        except Busy:
            log.info("%s is in use: it ends under its users", path)
            self._detached = True
            await _in_thread(_detach_and_push, path)
            pyfuse3.terminate()
        except (OSError, S3MountError) as error:
            log.warning("%s was not unmounted cleanly: %s", path, error)
            pyfuse3.terminate()


async def _keep_running(fs: Filesystem) -> None:
    """The background work of *fs*; a defect in it must not take the mount down."""
    while True:
        try:
            await fs.run()
        except Exception:
            log.exception("Background work failed; it begins again in %s s", RESTART_S)
        await trio.sleep(RESTART_S)


async def _ask_for_patience() -> None:
    notify(STOPPING="1", STATUS="committing what is open")
    while True:
        notify(EXTEND_TIMEOUT_USEC=str(EXTEND_BY_S * 1_000_000))
        await trio.sleep(EXTEND_EVERY_S)


async def _in_thread(call: Callable[[Path], None], path: Path) -> None:
    """Whatever enters the kernel on our own mount needs our event loop meanwhile."""
    await trio.to_thread.run_sync(call, path, abandon_on_cancel=True)


def _push_pages(path: Path) -> None:
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        mountpoint.push_pages(root)
    finally:
        os.close(root)


def _detach_and_push(path: Path) -> None:
    """Nobody new comes in; what the present users have written is handed over. The descriptor keeps the mount reachable for that."""
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        mountpoint.detach(path)
        mountpoint.push_pages(root)
    finally:
        os.close(root)


# -- the kernel session -----------------------------------------------------------------------


def shown_source(options: MountOptions) -> str:
    """The source as mount tables show it."""
    return quote(options.source, safe="/:@!$&'()*+,;=~[]#?% ")


def kernel_options(options: MountOptions) -> set[str]:
    """For libfuse. The name in mount tables is the source as it was given, so that fstab and `findmnt` recognise it."""
    source = shown_source(options).replace(",", "\\,")
    chosen = {"default_permissions", f"fsname={source}", "subtype=s3mount", *options.kernel}
    if options.allow_other:
        chosen.add("allow_other")
    if options.fs.read_only:
        chosen.add("ro")
    return chosen


def _init(operations: Operations, options: MountOptions) -> Handshake | None:
    """Mount, and have libfuse ready to answer. None where libfuse did all of it."""
    handshake, wanted = None, kernel_options(options)
    with _stderr_captured() as said:
        try:
            if can_shake_hands(wanted):
                handshake = Handshake(options.mountpoint, wanted)
            pyfuse3.init(operations, handshake.path if handshake else str(options.mountpoint), wanted)
        except (RuntimeError, Unavailable) as error:
            if handshake is not None:
                handshake.abandon()
                mountpoint.detach(options.mountpoint)
            reason = said().splitlines()
            raise Unavailable(f"the kernel did not accept the mount: {reason[-1] if reason else error}") from None
    return handshake


async def _main_loop() -> None:
    """Serve requests until the mount is gone. If that happens while one is being read, it ends with ECONNABORTED: an ordinary end too."""
    try:
        await pyfuse3.main(min_tasks=MIN_TASKS, max_tasks=MAX_TASKS)
    except* OSError as group:
        if any(isinstance(leaf, OSError) and leaf.errno != errno.ECONNABORTED for leaf in _leaves(group)):
            raise


def _close(invalidator: Invalidator, handshake: Handshake | None, *, mountpoint_left: Path | None) -> None:
    """End the session, and take it off *mountpoint_left*; None: what stands there by now may be somebody else's."""
    if handshake is not None:
        handshake.abandon()
    if not invalidator.close(patience_s=INVALIDATOR_PATIENCE_S):
        log.warning("A request to the kernel did not come back; its session is left to the end of the process")
        return
    pyfuse3.close(unmount=handshake is None and mountpoint_left is not None)
    if handshake is not None and mountpoint_left is not None:
        mountpoint.clear_dead(mountpoint_left)


@contextmanager
def _stderr_captured() -> Iterator[Callable[[], str]]:
    """libfuse and fusermount3 print why they refuse; the block gets a way to what was printed since."""
    kept = os.dup(2)
    told = os.memfd_create("stderr", os.MFD_CLOEXEC)
    os.dup2(told, 2)
    try:
        yield partial(_read_all, told)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(told)


def _read_all(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace").strip()


# -- what to tell ------------------------------------------------------------------------------


def _leaves(error: BaseException) -> list[BaseException]:
    return [leaf for part in error.exceptions for leaf in _leaves(part)] if isinstance(error, BaseExceptionGroup) else [error]


def _is_told(error: BaseException) -> bool:
    """Whether the text says it all, and a traceback would only frighten."""
    return all(isinstance(leaf, S3MountError | OSError) for leaf in _leaves(error))


def _sentence(error: BaseException) -> str:
    leaves = _leaves(error)
    first = str(leaves[0]) or type(leaves[0]).__name__
    return first if len(leaves) == 1 else f"{first} (and {len(leaves) - 1} more, see the log)"
