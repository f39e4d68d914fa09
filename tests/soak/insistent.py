"""An application that insists: it repeats each change until it is acknowledged, and knows what must then be in the bucket.

Owns: the changes, what counts as acknowledged, what is known after each; the errnos that a bad day may give.
Must not know: what makes the day bad, how the directory is mounted, the store.

Acknowledged is what a system call answers: a close or an fsync of written bytes, a rename, an unlink, a mkdir, that returned 0. A failed or
interrupted change may have happened or not; the application then looks, or does it again from the beginning. So when `live` returns
there is no doubt: `world` has every name with its bytes, `notes` the mode and the attribute of those that were given one.

    change --ok--> acknowledged: known
       `---errno--> in doubt --look: as wanted, and fsync says 0--> acknowledged
                       `-------- otherwise --> the whole content anew, or the same change again
"""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from s3mount.model import KiB, MiB

# What a day without store, rights, room or mount answers. A name that is missing without reason is not among them.
BAD_DAY = frozenset(
    {errno.EIO, errno.EACCES, errno.ETIMEDOUT, errno.ENOSPC, errno.ESTALE, errno.ENOTCONN, errno.ECONNABORTED, errno.ENXIO, errno.EPIPE}
)
# Seconds between attempts, and until an application gives up: nothing that a soak does lasts so long.
PAUSE_S = 0.05
PATIENCE_S = 150.0
NAMES = [f"file-{number}" for number in range(8)]
FOLDERS = ["one", "two"]
NOTE = "user.note"
# Lines of what an application did that are told when it fails.
STORY = 60
MODES = (0o600, 0o640, 0o755)
# Of several parts, and so small that the staging folder holds one of each application.
LARGE = 12 * MiB, 20 * MiB


@dataclass(frozen=True, slots=True)
class Note:
    """What was said of a file beside its content: its mode, an extended attribute."""

    mode: int
    value: bytes


class Weather:
    """What happens to the mount itself: while it is not `up`, or if it fell since a change began, any errno is understood."""

    def __init__(self) -> None:
        self.up = threading.Event()
        self.up.set()
        self.falls = 0

    def fell_since(self, falls: int) -> bool:
        return self.falls != falls or not self.up.is_set()


@dataclass
class Insistent:
    """One application, in the directory *home* (below the mount's top, so that it is not there while nothing is mounted).

    *acknowledged* is called with a name, its bytes (None for no such name) and its note, right after each acknowledgement.
    """

    home: Path
    seed: int
    weather: Weather
    acknowledged: Callable[[str, bytes | None, Note | None], None]
    world: dict[str, bytes] = field(default_factory=dict)
    notes: dict[str, Note] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    story: deque[str] = field(default_factory=lambda: deque(maxlen=STORY))

    def live(self, until: Callable[[], bool]) -> None:
        """Changes, one after another, until it is time and the last is acknowledged. Raises AssertionError for a lost name or content."""
        rng = random.Random(self.seed)
        self._insist(lambda: os.makedirs(self.home, exist_ok=True))
        while not until():
            change = rng.choices(*zip(*self._changes(), strict=True))[0]
            self.told[change.__name__] += 1
            self._tell(change.__name__)
            try:
                change(self, rng)
            except AssertionError as error:
                error.add_note("before that:\n  " + "\n  ".join(self.story))
                raise

    def _tell(self, line: str) -> None:
        self.story.append(f"{time.strftime('%H:%M:%S')} {line}")

    def _changes(self) -> Sequence[tuple[Callable[[Insistent, random.Random], None], int]]:
        return CHANGES

    def _new_name(self, rng: random.Random) -> str:
        return rng.choice(NAMES)

    def _some(self, rng: random.Random) -> str | None:
        files = sorted(name for name in self.world if "/" not in name)
        return rng.choice(files) if files else None

    # -- insisting ------------------------------------------------------------------------

    def _insist(self, act: Callable[[], object], again: Callable[[], object] | None = None) -> None:
        """Do *act*, and after a failure *again* (by default the same), until it is acknowledged."""
        deadline = time.monotonic() + PATIENCE_S
        last = ""
        while True:
            falls = self.weather.falls
            try:
                self.weather.up.wait(PATIENCE_S)
                act()
                if not self.weather.fell_since(falls):
                    return
                self.told["done while the mount fell"] += 1
            except OSError as error:
                self._endure(error, falls)
                last = str(error)
            assert time.monotonic() < deadline, f"{self.home.name}: not done within {PATIENCE_S} s: {last}"
            time.sleep(PAUSE_S)
            act = again or act

    def _endure(self, error: OSError, falls: int) -> None:
        name = errno.errorcode.get(error.errno or 0, str(error))
        self.told[name] += 1
        self._tell(f"  {name}: {error.filename}")
        if error.errno not in BAD_DAY and not self.weather.fell_since(falls):
            raise AssertionError(f"{self.home.name}: {name} is no weather: {error}") from error

    # -- contents -------------------------------------------------------------------------

    def _know(self, name: str, content: bytes) -> None:
        self.world[name] = content
        self._tell(f"  {name} is {len(content)} bytes, {self.notes.get(name)}")
        self.acknowledged(name, content, self.notes.get(name))

    def _know_moved(self, names: Iterable[tuple[str, str]]) -> None:
        """Of each pair, what the first was called is called the second now."""
        moved = [(name, new, self.world.pop(name), self.notes.pop(name, None)) for name, new in names]
        for _, new, content, note in moved:
            self.world[new] = content
            self.notes.pop(new, None)
            if note:
                self.notes[new] = note
        for name, new, content, note in moved:
            self._tell(f"  {name} is {new}")
            self.acknowledged(name, None, None)
            self.acknowledged(new, content, note)

    def _replace(self, name: str, content: bytes) -> None:
        """The whole content, in one go."""
        with open(self.home / name, "wb", buffering=0) as file:
            _write_all(file.fileno(), content, 0)

    def _mend(self, name: str, content: bytes) -> None:
        """After a doubt: what is there may be what is wanted, and then only has to be in the bucket. What was there before still is.

        Where the disk was full bytes may be lost that the kernel still shows: then fsync fails until they are written anew.
        """
        try:
            with open(self.home / name, "r+b", buffering=0) as file:
                if file.read() == content:
                    os.fsync(file.fileno())
                    self.told["found done"] += 1
                    return
        except OSError as error:
            if error.errno != errno.ENOSPC and (error.errno != errno.ENOENT or name in self.world):
                raise
        self._replace(name, content)

    def write(self, rng: random.Random) -> None:
        name, content = self._new_name(rng), made(rng)
        self._insist(lambda: self._replace(name, content), lambda: self._mend(name, content))
        self._know(name, content)

    def append(self, rng: random.Random) -> None:
        if not (name := self._some(rng)):
            return
        before, more = self.world[name], made(rng, most=200 * KiB)

        def act() -> None:
            with open(self.home / name, "ab", buffering=0) as file:
                _write_all(file.fileno(), more, 0)

        self._insist(act, lambda: self._mend(name, before + more))
        self._know(name, before + more)

    def edit(self, rng: random.Random) -> None:
        if not (name := self._some(rng)):
            return
        before, new = self.world[name], made(rng, most=64 * KiB)
        at = rng.randrange(len(before) + 1)
        content = before[:at] + new + before[at + len(new) :]

        def act() -> None:
            fd = os.open(self.home / name, os.O_RDWR)
            try:
                _write_all(fd, new, at)
                if rng.randrange(2):
                    os.fsync(fd)
            finally:
                os.close(fd)

        self._insist(act, lambda: self._mend(name, content))
        self._know(name, content)

    def save(self, rng: random.Random) -> None:
        """As editors do: a temporary file, synced, renamed over the old."""
        name, content = self._new_name(rng), made(rng)

        def act() -> None:
            with open(self.home / "temporary", "wb", buffering=0) as file:
                _write_all(file.fileno(), content, 0)
                os.fsync(file.fileno())
            os.replace(self.home / "temporary", self.home / name)

        self._insist(act)
        self.notes.pop(name, None)
        self._know(name, content)

    def cut(self, rng: random.Random) -> None:
        """To any size: shorter, or longer by zeros."""
        if not (name := self._some(rng)):
            return
        before = self.world[name]
        size = rng.randrange(len(before) * 5 // 4 + 1)
        content = before[:size].ljust(size, b"\0")

        def act() -> None:
            with open(self.home / name, "r+b", buffering=0) as file:
                os.ftruncate(file.fileno(), size)

        self._insist(act, lambda: self._mend(name, content))
        self._know(name, content)

    def rework(self, rng: random.Random) -> None:
        """Several edits of a file of many parts at one opening, synced between: most of it is copied within the store."""
        large = [name for name, content in self.world.items() if len(content) >= LARGE[0]]
        if not large:
            name, content = self._new_name(rng), rng.randbytes(rng.randrange(*LARGE))
            self._insist(lambda: self._replace(name, content), lambda: self._mend(name, content))
            self._know(name, content)
            return
        name = rng.choice(sorted(large))
        after, edits = bytearray(self.world[name]), [(rng.randrange(LARGE[0]), made(rng, most=100 * KiB)) for _ in range(4)]
        for at, new in edits:
            after[at : at + len(new)] = new

        def act() -> None:
            with open(self.home / name, "r+b", buffering=0) as file:
                for at, new in edits:
                    _write_all(file.fileno(), new, at)
                    if at % 2:
                        os.fsync(file.fileno())

        self._insist(act, lambda: self._mend(name, bytes(after)))
        self._know(name, bytes(after))

    def read(self, rng: random.Random) -> None:
        if not (name := self._some(rng)):
            return
        expected, note = self.world[name], self.notes.get(name)

        def act() -> None:
            found = (self.home / name).read_bytes()
            assert found == expected, f"{self.home.name}: {name} reads {len(found)} bytes that are not the {len(expected)} acknowledged"
            if note:
                said = Note(os.stat(self.home / name).st_mode & 0o7777, os.getxattr(self.home / name, NOTE))
                assert said == note, f"{self.home.name}: {name} says {said}, not {note}"

        self._insist(act)

    def describe(self, rng: random.Random) -> None:
        """A mode and an attribute, after the file was closed; fsync has them in the bucket."""
        if not (name := self._some(rng)):
            return
        note = Note(rng.choice(MODES), rng.randbytes(rng.randrange(1, 60)))

        def act() -> None:
            with open(self.home / name, "rb") as file:
                os.fchmod(file.fileno(), note.mode)
                os.setxattr(file.fileno(), NOTE, note.value)
                os.fsync(file.fileno())

        self._insist(act)
        self.notes[name] = note
        self._know(name, self.world[name])

    # -- names ----------------------------------------------------------------------------

    def rename(self, rng: random.Random) -> None:
        name, new = self._some(rng), self._new_name(rng)
        if not name or name == new:
            return
        self._insist(lambda: os.rename(self.home / name, self.home / new), lambda: self._move_if_there(name, new))
        self._insist(self._sync)
        self._know_moved([(name, new)])

    def _move_if_there(self, name: str, new: str) -> None:
        try:
            os.rename(self.home / name, self.home / new)
        except FileNotFoundError:
            os.stat(self.home / new)

    def _sync(self) -> None:
        """A rename is acknowledged by the name that one sees; that nothing is left of the old one, by fsync of the directory."""
        fd = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def unlink(self, rng: random.Random) -> None:
        if not (name := self._some(rng)):
            return
        self._insist(lambda: os.unlink(self.home / name), lambda: (self.home / name).unlink(missing_ok=True))
        del self.world[name]
        self.notes.pop(name, None)
        self.acknowledged(name, None, None)

    def move_folder(self, rng: random.Random) -> None:
        """A directory of some files is made, or the one that is there moves."""
        name, new = rng.sample(FOLDERS, 2)
        inside = [path for path in self.world if path.startswith(f"{name}/")]
        if not inside:
            self._fill_folder(rng, name)
            return
        if any(path.startswith(f"{new}/") for path in self.world):
            return
        self._insist(lambda: os.rename(self.home / name, self.home / new), lambda: self._move_if_there(name, new))
        self._insist(self._sync)
        self._know_moved([(path, new + path[len(name) :]) for path in inside])

    def _fill_folder(self, rng: random.Random, name: str) -> None:
        self._insist(lambda: os.makedirs(self.home / name, exist_ok=True))
        for number in range(5):
            path, content = f"{name}/{number}", made(rng, most=50 * KiB)
            self._insist(lambda path=path, content=content: self._replace(path, content))  # type: ignore[misc]
            self._know(path, content)


def _write_all(fd: int, content: bytes, at: int) -> None:
    """In pieces of 1 MiB, as programs do. (Where the descriptor appends, *at* means nothing.)"""
    for start in range(0, len(content), MiB):
        piece = content[start : start + MiB]
        if os.pwrite(fd, piece, at + start) != len(piece):
            raise OSError(errno.ENOSPC, "a short write")


def made(rng: random.Random, *, most: int = 0) -> bytes:
    """Mostly small; now and then of several parts, and seldom so large that parts of it go before the close."""
    limit = most or rng.choices((20 * KiB, 300 * KiB, 12 * MiB, 40 * MiB), (60, 30, 8, 2))[0]
    return rng.randbytes(rng.randrange(1, limit))


CHANGES: list[tuple[Callable[[Insistent, random.Random], None], int]] = [
    (Insistent.write, 30),
    (Insistent.append, 15),
    (Insistent.edit, 15),
    (Insistent.save, 10),
    (Insistent.cut, 6),
    (Insistent.rework, 4),
    (Insistent.describe, 10),
    (Insistent.read, 10),
    (Insistent.rename, 10),
    (Insistent.unlink, 8),
    (Insistent.move_folder, 6),
]
