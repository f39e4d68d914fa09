"""What the kernel believes for minutes is forgotten within the time-to-live when another process changes it: on real mounts.

Another process is an engine on the same folder, a second mount, or the server. The kernel would believe for 300 s: what shows in time was
heard of.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from s3mount.engine.engine import Engine
from s3mount.engine.values import How
from s3mount.model import Key
from tests.fuse.conftest import NewMount
from tests.fuse.mounting import Mount, until
from tests.server.serving import Server

pytestmark = pytest.mark.fuse

BUCKET = "bucket"
TTL = "0.3"


@pytest.fixture
def mount(new_mount: NewMount) -> Mount:
    return new_mount(f"--metadata-ttl={TTL}")


@pytest.fixture
def other(mount: Mount) -> Iterator[Engine]:
    with closing(Engine.open(mount.data)) as engine:
        yield engine


def put(engine: Engine, key: str, data: bytes = b"text", **metadata: str) -> None:
    engine.put(BUCKET, Key(key), data, How(metadata=metadata), durable=False)


def is_missing(path: Path) -> Callable[[], bool]:
    return lambda: not path.exists()


def test_a_file_that_another_process_removes_is_gone(mount: Mount, other: Engine) -> None:
    put(other, "folder/file")
    path = mount.path / "folder/file"
    until(path.exists)
    other.delete(BUCKET, Key("folder/file"), durable=False)
    until(is_missing(path))
    until(is_missing(path.parent))


def test_a_file_that_another_process_replaces_is_read_anew_and_who_has_it_open_reads_on(mount: Mount, other: Engine) -> None:
    put(other, "file", b"old" * 1000)
    path = mount.path / "file"
    until(path.exists)
    with path.open("rb") as file:
        assert file.read(3) == b"old"
        number = path.stat().st_ino
        put(other, "file", b"new" * 10)
        until(lambda: path.stat().st_size == 30)
        assert path.read_bytes() == b"new" * 10
        assert path.stat().st_ino != number
        assert file.read() == b"old" * 999
        assert os.fstat(file.fileno()).st_size == 3000


def test_a_name_that_was_missing_shows_when_another_process_makes_it(mount: Mount, other: Engine) -> None:
    put(other, "folder/")
    until((mount.path / "folder").exists)
    assert not (mount.path / "folder/file").exists()
    put(other, "folder/file")
    until((mount.path / "folder/file").exists)


def test_a_mode_that_another_process_sets_shows(mount: Mount, other: Engine) -> None:
    put(other, "file", mode=str(0o100644))
    until((mount.path / "file").exists)
    other.update(BUCKET, Key("file"), {"mode": str(0o100600)}, durable=False)
    until(lambda: (mount.path / "file").stat().st_mode == 0o100600)


def test_a_tree_that_another_process_renames_is_where_it_went_with_who_works_in_it(mount: Mount, other: Engine) -> None:
    for key in ("old/", "old/sub/", "old/sub/file"):
        put(other, key, b"" if key.endswith("/") else b"text", **({"mode": str(0o040755)} if key.endswith("/") else {}))
    until((mount.path / "old/sub/file").exists)
    with (mount.path / "old/sub/file").open() as file:
        other.rename_prefix(BUCKET, "old/", "new/", durable=False)
        until((mount.path / "new/sub/file").exists)
        until(is_missing(mount.path / "old"))
        assert file.read() == "text"
    until(lambda: os.listdir(mount.path) == ["new"])


def test_a_directory_that_somebody_stands_in_stays_when_another_process_changes_what_is_in_it(mount: Mount, other: Engine) -> None:
    put(other, "folder/sub/file")
    until((mount.path / "folder/sub/file").exists)
    asked = f"cd {mount.path}/folder/sub; echo there; read go; /bin/pwd -P; ls"
    with subprocess.Popen(["sh", "-c", asked], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdout.readline()
        put(other, "folder/sub/more")
        other.delete(BUCKET, Key("folder/sub/file"), durable=False)
        until(is_missing(mount.path / "folder/sub/file"))
        answers, _ = shell.communicate("\n")
    assert answers.split() == [f"{mount.path}/folder/sub", "more"]


def test_what_comes_in_through_the_server_shows(mount: Mount, tmp_path: Path) -> None:
    server = Server(mount.data, log=tmp_path / "serve.log")
    try:
        assert server.request("PUT", f"/{BUCKET}/folder/file", b"text").status == 200
        path = mount.path / "folder/file"
        until(path.exists)
        assert path.read_bytes() == b"text"
        assert server.request("PUT", f"/{BUCKET}/folder/file", b"another text").status == 200
        until(lambda: path.read_bytes() == b"another text")
        assert server.request("DELETE", f"/{BUCKET}/folder/file").status == 204
        until(is_missing(path))
        assert server.stop() == 0
    finally:
        server.kill()


@pytest.mark.parametrize("ttl", ["0", "1", "forever"])
def test_two_mounts_see_each_others_changes_whatever_the_time_to_live(ttl: str, new_mount: NewMount) -> None:
    one = new_mount(f"--metadata-ttl={ttl}")
    other = new_mount(f"--metadata-ttl={ttl}", data=one.data)
    (one.path / "folder").mkdir()
    (one.path / "folder/file").write_text("1")
    assert other.seen("folder/file").read_text() == "1"
    (other.path / "folder/file").write_text("22")
    until(lambda: (one.path / "folder/file").read_text() == "22")
    (one.path / "folder").rename(one.path / "renamed")
    until(is_missing(other.path / "folder"))
    assert other.seen("renamed/file").read_text() == "22"
    (other.path / "renamed/file").unlink()
    until(is_missing(one.path / "renamed/file"))


NAMES = ("a", "b", "c")
PATHS = tuple("/".join(parts) for depth in (1, 2, 3) for parts in itertools.product(NAMES, repeat=depth))


def seen(top: Path) -> dict[str, object]:
    """What stat(2) and read(2) say of every path there could be: by name, which asks the kernel what it believes."""
    told: dict[str, object] = {}
    for path in PATHS:
        try:
            status = (top / path).stat()
            told[path] = (status.st_mode, status.st_size, (top / path).read_bytes()) if (top / path).is_file() else status.st_mode
        except OSError as error:
            told[path] = error.errno if error.errno != errno.ENOTDIR else errno.ENOENT
    return told


def do_something(top: Path, dice: random.Random) -> None:
    """Whatever may fail because the other mount was faster, may fail."""
    path, other = top / dice.choice(PATHS), top / dice.choice(PATHS)
    with suppress(OSError):
        match dice.randrange(8):
            case 0 | 1:
                path.write_bytes(b"x" * dice.randrange(5000))
            case 2:
                with path.open("ab") as file:
                    file.write(b"more")
            case 3:
                path.mkdir(parents=True)
            case 4:
                path.unlink()
            case 5:
                path.rmdir()
            case 6:
                path.rename(other)
            case 7:
                path.chmod(dice.choice((0o600, 0o755)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_two_mounts_that_both_change_a_tree_agree_in_the_end(seed: int, mount: Mount, new_mount: NewMount) -> None:
    dice = random.Random(seed)
    other = new_mount(f"--metadata-ttl={TTL}", data=mount.data)
    tops = (mount.path, other.path)
    for number in range(400):
        do_something(dice.choice(tops), dice)
        if number % 10 == 0:
            seen(dice.choice(tops))
        if number % 100 == 99:
            until(lambda: seen(tops[0]) == seen(tops[1]))
