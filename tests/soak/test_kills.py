"""kill -9 of a mount in the middle of cp, mv, rsync and rm, at a moment drawn by lot: what was finished is there, and all can go on.

SOAK_SEED repeats the moments, as far as programs and machine let it; SOAK_ROUNDS says how often each is killed.

    cp -a        what cp had closed is there, whole, with mode and time; cp -a once more completes it
    mv           the directory is under the one name or the other, whole, never under both
    rsync -a     once more completes it, and a third run finds nothing to do
    rm -r        once more completes it, and the bucket has nothing left of it
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from s3mount.model import KiB, MiB
from tests.fuse.mounting import Mount
from tests.fuse.remote import isolate, remote
from tests.server.serving import served
from tests.wire.front import Front

pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.soak]

FILES = 250
ROUNDS = int(os.environ.get("SOAK_ROUNDS", 3))
MODES = (0o644, 0o600, 0o755, 0o640)
WAYS = {"embedded": None, "at once": (), "written back": ("--write-back",)}


@dataclass
class Scene:
    mount: Mount
    front: Front | None
    tree: Path
    rng: random.Random

    def killed(self, command: list[str | Path], moment: Callable[[list[str]], bool]) -> list[str]:
        """Run *command* until *moment*, asked with the lines that it printed; then kill the mount, and mount again. The lines."""
        lines: list[str] = []
        line_by_line = ["stdbuf", "-oL", *map(str, command)]
        with subprocess.Popen(
            line_by_line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="surrogateescape"
        ) as program:
            assert program.stdout is not None
            for line in program.stdout:
                lines.append(line.rstrip("\n"))
                if moment(lines):
                    break
            self.mount.kill()
            lines += [line.rstrip("\n") for line in program.stdout]
        self.mount.start()
        return lines

    def requests(self, kind: str) -> int:
        return self.front.counts()[kind].requests if self.front else 0


@pytest.fixture
def seed(capfd: pytest.CaptureFixture[str]) -> int:
    chosen = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(1 << 30)))
    with capfd.disabled():
        print(f"\nSOAK_SEED={chosen}")  # noqa: T201 (what repeats it)
    return chosen


@pytest.fixture(params=WAYS)
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, seed: int) -> Iterator[Scene]:
    isolate(monkeypatch, tmp_path)
    options, rng, front = WAYS[request.param], random.Random(seed), None
    with ExitStack() as stack:
        mount = Mount(tmp_path / "mounted")
        if options is not None:
            (tmp_path / "server").mkdir()
            server = stack.enter_context(served(tmp_path / "server"))
            front = stack.enter_context(Front(f"{server.host}:{server.port}"))
            mount = remote(tmp_path / "remote", front.url, "killed", *options)
        stack.enter_context(mount.running())
        yield Scene(mount, front, planted(tmp_path / "tree", rng), rng)


def planted(tree: Path, rng: random.Random) -> Path:
    """Files of many sizes, some with parts, in directories; links, modes and times."""
    for number in range(FILES):
        path = tree / f"d{number % 7}" / f"e{number % 3}" / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.randrange(rng.choices((5 * KiB, 300 * KiB, 10 * MiB), (70, 27, 3))[0])))
        path.chmod(rng.choice(MODES))
        os.utime(path, ns=(10**18, 10**18 + number * 10**9 + 5))
    for number in range(5):
        (tree / f"d{number}" / "link").symlink_to(f"e{number % 3}/file {number}")
    return tree


def picture(top: Path) -> dict[str, object]:
    """Every path below *top* with all that the programs keep; empty where there is no such directory."""
    return {str(path.relative_to(top)): told(path) for path in top.rglob("*")}


def told(path: Path) -> object:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if stat.S_ISDIR(status.st_mode):
        return stat.S_IMODE(status.st_mode)
    return stat.S_IMODE(status.st_mode), status.st_mtime_ns, path.read_bytes()


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    return sorted(path for path in {*one, *other} if one.get(path) != other.get(path))


def test_what_cp_had_closed_is_there_after_a_kill(scene: Scene) -> None:
    wanted = picture(scene.tree)
    for number in range(ROUNDS):
        copy, last = scene.mount.path / f"copy-{number}", scene.rng.randrange(1, len(wanted))
        lines = scene.killed(["cp", "-av", scene.tree, copy], lambda lines, last=last: len(lines) >= last)  # type: ignore[misc]
        # It names each file before it begins with it, and after the kill those that it could not copy.
        begun = [line.split("' -> '")[1].rstrip("'") for line in lines[:last] if "' -> '" in line]
        closed = {path: told(Path(path)) for path in begun[:-1] if not os.path.isdir(path) or os.path.islink(path)}
        wrong = [path for path, found in closed.items() if found != wanted[os.path.relpath(path, copy)]]
        assert not wrong, f"kill at line {last}"
        shutil.rmtree(copy / "d0", ignore_errors=True)
        subprocess.run(["cp", "-a", f"{scene.tree}/.", copy], check=True)
        assert not differences(wanted, picture(copy))
    scene.mount.again()
    assert not differences(wanted, picture(scene.mount.path / "copy-0"))


def test_a_directory_killed_while_it_moves_is_in_one_place(scene: Scene) -> None:
    wanted, top = picture(scene.tree), scene.mount.path
    subprocess.run(["cp", "-a", scene.tree, top / "a"], check=True)
    if scene.rng.randrange(2):
        scene.mount.again()
    here, there = top / "a", top / "b"
    for _ in range(ROUNDS):
        kill_in_a_rename(scene, here, there)
        left = [place for place in (here, there) if place.exists()]
        assert len(left) == 1, f"it is in {len(left)} places"
        assert not differences(wanted, picture(left[0]))
        if left[0] == there:
            here, there = there, here
    scene.mount.again()
    assert not differences(wanted, picture(here))


def kill_in_a_rename(scene: Scene, here: Path, there: Path) -> None:
    """At a request, where there are any."""
    kind, before = scene.rng.choice(("COPY", "DELETE")), 0
    before, wanted = scene.requests(kind), scene.rng.randrange(FILES)
    program = subprocess.Popen(["mv", here, there], stderr=subprocess.DEVNULL)
    while scene.front and program.poll() is None and scene.requests(kind) - before < wanted:
        pass
    scene.mount.kill()
    program.wait()
    scene.mount.start()


def test_rsync_goes_on_after_a_kill(scene: Scene) -> None:
    wanted = picture(scene.tree)
    for number in range(ROUNDS):
        copy, last = scene.mount.path / f"copy-{number}", scene.rng.randrange(1, FILES)
        command: list[str | Path] = ["rsync", "-a", "--delete", "--out-format=%n%b", f"{scene.tree}/", copy]
        scene.killed(command, lambda lines, last=last: len(lines) >= last)  # type: ignore[misc]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        assert not differences(wanted, picture(copy))
        again = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        assert [line for line in again.splitlines() if not line.startswith("./")] == []


def test_rm_goes_on_after_a_kill(scene: Scene) -> None:
    for number in range(ROUNDS):
        copy, last = scene.mount.path / f"copy-{number}", scene.rng.randrange(1, FILES)
        subprocess.run(["cp", "-a", scene.tree, copy], check=True)
        lines = scene.killed(["rm", "-rv", copy], lambda lines, last=last: len(lines) >= last)  # type: ignore[misc]
        gone = [line.split("'")[1] for line in lines if line.startswith("removed '")]
        back = [path for path in gone[:-1] if os.path.lexists(path)]
        assert not back, f"{len(back)} of {len(gone)} are back"
        subprocess.run(["rm", "-rf", copy], check=True)
        assert not copy.exists()
    scene.mount.again()
    assert os.listdir(scene.mount.path) == []
