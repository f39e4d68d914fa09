"""What is done in a mount of a remote bucket, and with how much.

Owns: the material and the work of every row.
Must not know: how anything is mounted, counted or judged.

Each work returns how much it did, in its row's unit, and fails when the bytes or names are not those of the material.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.remote_field import Bucket

MiB = 1 << 20
PAGE = 4096
SMALL_BYTES = 30_000
BLOCK = 4 * MiB
# --metadata-ttl where nothing else is said.
DEFAULT_TTL_S = 1.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything; `of(1)` is the full measurement."""

    large: int
    small_files: int
    flat_keys: int
    deep_files: int
    full_keys: int
    random_reads: int
    names: int

    @property
    def medium(self) -> int:
        return self.large // 4

    @classmethod
    def of(cls, scale: float) -> Sizes:
        def some(count: int, least: int) -> int:
            return max(least, int(count * scale))

        return cls(
            large=some(64, 1) * 4 * BLOCK,
            small_files=some(1000, 20),
            flat_keys=some(100_000, 2000),
            deep_files=some(500, 10) * 20,
            full_keys=some(10_000, 200),
            random_reads=some(2000, 64),
            names=some(1000, 50),
        )


def stamped(number: int, block: bytearray) -> bytes:
    """Block *number* of the large object: each page begins with its own number, so that a wrong one is noticed."""
    first = number * (BLOCK // PAGE)
    for page in range(BLOCK // PAGE):
        struct.pack_into("<Q", block, page * PAGE, first + page)
    return bytes(block)


def blocks(size: int) -> Iterator[bytes]:
    """*size* bytes, a multiple of BLOCK."""
    block = bytearray(random.Random(1).randbytes(BLOCK))
    return (stamped(number, block) for number in range(size // BLOCK))


def require_stamp(data: bytes | memoryview, page: int) -> None:
    found = struct.unpack_from("<Q", data)[0]
    if found != page:
        raise AssertionError(f"wrong bytes: page {found} where {page} was read")


def objects(sizes: Sizes) -> Iterator[tuple[str, bytes]]:
    """All that is in the bucket beforehand but the large one."""
    source = random.Random(2)
    for number in range(sizes.small_files):
        yield f"small/{number // 50:03}/file-{number:05}.bin", source.randbytes(SMALL_BYTES)
    for number in range(sizes.flat_keys):
        yield f"flat/key-{number:06}", b"x"
    for number in range(sizes.deep_files):
        yield f"deep/{number // 400:02}/{number // 20 % 20:02}/file-{number % 20:02}", b"y" * (500 if number % 2 else 2000)
    for number in range(sizes.full_keys):
        yield f"full/key-{number:05}", b"z"
    for number in range(sizes.names):
        yield f"names/name-{number:05}", b"n"


@dataclass
class Run:
    """One row in one mount. `directory` is the mount, `folder` local disk, `prefix` a place in the bucket of its own."""

    name: str
    directory: Path
    folder: Path
    prefix: str
    sizes: Sizes
    bucket: Bucket
    remount: Callable[[], None]
    notes: list[str] = field(default_factory=list)

    @property
    def place(self) -> Path:
        return self.directory / self.prefix.rstrip("/")


# -- reading (issue 4) -------------------------------------------------------------------------


def read_sequentially(run: Run) -> float:
    buffer = memoryview(bytearray(MiB))
    began = time.perf_counter()
    descriptor = os.open(run.directory / "large", os.O_RDONLY)
    first = os.pread(descriptor, PAGE, 0)
    run.notes.append(f"first byte {(time.perf_counter() - began) * 1000:.0f} ms")
    require_stamp(first, 0)
    done = 0
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            require_stamp(buffer, done // PAGE)
            done += count
    if done != run.sizes.large:
        raise AssertionError(f"{done} bytes of {run.sizes.large}")
    return done / 1e6


def read_again(run: Run) -> float:
    """An object that fits the default memory limit, after the kernel was made to forget its pages."""
    descriptor = os.open(run.directory / "medium", os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    buffer = memoryview(bytearray(MiB))
    done = 0
    with (run.directory / "medium").open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            require_stamp(buffer, done // PAGE)
            done += count
    if done != run.sizes.medium:
        raise AssertionError(f"{done} bytes of {run.sizes.medium}")
    return done / 1e6


def read_and_remount(run: Run) -> None:
    read_again(run)
    run.remount()


def copy_small_out(run: Run) -> float:
    target = run.folder / "copied"
    sh("cp", "-r", run.directory / "small", target)
    found = sum(path.stat().st_size for path in target.rglob("*.bin"))
    if found != run.sizes.small_files * SMALL_BYTES:
        raise AssertionError(f"{found} bytes came out")
    shutil.rmtree(target)
    return run.sizes.small_files


def read_randomly(run: Run) -> float:
    """In eight threads on one descriptor, as a database or a loader does."""
    descriptor = os.open(run.directory / "large", os.O_RDONLY)
    pages = [random.Random(3 + number).randrange(run.sizes.large // PAGE) for number in range(run.sizes.random_reads)]
    failures: list[BaseException] = []

    def some(number: int) -> None:
        try:
            for page in pages[number::8]:
                require_stamp(os.pread(descriptor, PAGE, page * PAGE), page)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=some, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(descriptor)
    if failures:
        raise failures[0]
    return len(pages)


# -- names (issue 5) ---------------------------------------------------------------------------


def list_long(name: str, count: Callable[[Sizes], int]) -> Callable[[Run], float]:
    def work(run: Run) -> float:
        listed = subprocess.run(["ls", "-l", str(run.directory / name)], check=True, capture_output=True).stdout.count(b"\n") - 1
        if listed != count(run.sizes):
            raise AssertionError(f"{listed} names of {count(run.sizes)}")
        return listed

    return work


def first_name(run: Run) -> float:
    sh("sh", "-c", f"ls -f '{run.directory / 'flat'}' | head -3")
    return 1


def find_large(run: Run) -> float:
    command = ["find", str(run.directory / "deep"), "-type", "f", "-size", "+1k"]
    found = subprocess.run(command, check=True, capture_output=True).stdout.count(b"\n")
    if found != run.sizes.deep_files // 2:
        raise AssertionError(f"{found} files of {run.sizes.deep_files // 2}")
    return run.sizes.deep_files


def sum_up(run: Run) -> float:
    sh("du", "-s", run.directory / "deep")
    return run.sizes.deep_files


def ask_for_names(run: Run) -> float:
    for number in range(run.sizes.names):
        os.stat(run.directory / f"names/name-{number:05}")
    return run.sizes.names


def list_names(run: Run) -> None:
    os.listdir(run.directory / "names")


def ask_for_absent_names(run: Run) -> float:
    for number in range(run.sizes.names):
        if os.path.exists(run.directory / f"names/absent-{number:05}"):
            raise AssertionError("an absent name is there")
    return run.sizes.names


def list_and_remount(name: str) -> Callable[[Run], None]:
    def prepare(run: Run) -> None:
        sh("ls", "-l", run.directory / name)
        run.remount()
        time.sleep(DEFAULT_TTL_S)

    return prepare


# -- writing (issue 6) -------------------------------------------------------------------------


def make_place(run: Run) -> None:
    run.place.mkdir(parents=True)


def make_large(run: Run) -> Path:
    path = run.folder / "material"
    with path.open("wb") as file:
        for block in blocks(run.sizes.large):
            file.write(block)
    return path


def prepare_large(run: Run) -> None:
    make_place(run)
    make_large(run)


def write_sequentially(run: Run) -> float:
    """cp, and until the bytes are in the bucket."""
    began = time.perf_counter()
    sh("cp", run.folder / "material", run.place / "large")
    copied = time.perf_counter()
    run.bucket.wait_for(run.prefix, 1, run.sizes.large, 60)
    run.notes.append(f"cp {copied - began:.2f} s, in the bucket {time.perf_counter() - copied:.2f} s later")
    return run.sizes.large / 1e6


def make_tree(run: Run) -> None:
    source = random.Random(run.name)
    for number in range(run.sizes.small_files):
        path = run.folder / f"tree/{number // 50:03}/file-{number:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(SMALL_BYTES))
    make_place(run)


def make_tree_and_time_the_disk(run: Run) -> None:
    """With a note of how long the local disk takes for the same files, each with an fsync."""
    make_tree(run)
    began = time.perf_counter()
    for path in sorted((run.folder / "tree").rglob("*.bin")):
        copy_synced(path, run.folder / "on-disk" / path.relative_to(run.folder))
    run.notes.append(f"local disk {time.perf_counter() - began:.2f} s")


def copy_synced(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        file.write(path.read_bytes())
        file.flush()
        os.fsync(file.fileno())


def copy_small_in(run: Run) -> float:
    """cp -r, and until all is in the bucket."""
    began = time.perf_counter()
    sh("cp", "-r", run.folder / "tree", run.place / "tree")
    copied = time.perf_counter()
    run.bucket.wait_for(f"{run.prefix}tree/", run.sizes.small_files, run.sizes.small_files * SMALL_BYTES, 60)
    run.notes.append(f"cp {copied - began:.2f} s, in the bucket {time.perf_counter() - copied:.2f} s later")
    return run.sizes.small_files


def fill_place(run: Run) -> None:
    """A tree that this very mount wrote."""
    make_tree(run)
    copy_small_in(run)
    run.notes.clear()


def remove_tree(run: Run) -> float:
    sh("rm", "-r", run.place / "tree")
    run.bucket.wait_for(f"{run.prefix}tree/", 0, 0, 60)
    return run.sizes.small_files


def rename_tree(run: Run) -> float:
    os.rename(run.place / "tree", run.place / "moved")
    run.bucket.wait_for(f"{run.prefix}moved/", run.sizes.small_files, run.sizes.small_files * SMALL_BYTES, 60)
    run.bucket.wait_for(f"{run.prefix}tree/", 0, 0, 60)
    return run.sizes.small_files


def sync_first(run: Run) -> None:
    make_tree(run)
    sh("rsync", "-a", f"{run.folder / 'tree'}/", run.place / "tree")
    run.bucket.wait_for(f"{run.prefix}tree/", run.sizes.small_files, run.sizes.small_files * SMALL_BYTES, 60)


def sync_again(run: Run) -> float:
    command = ["rsync", "-a", "--itemize-changes", f"{run.folder / 'tree'}/", str(run.place / "tree")]
    changed = subprocess.run(command, check=True, capture_output=True).stdout.count(b">f")
    run.notes.append(f"{changed} sent again")
    return run.sizes.small_files


def put_large(run: Run) -> None:
    run.bucket.put(f"{run.prefix}large", run.sizes.large, (bytes(BLOCK) for _ in range(run.sizes.large // BLOCK)))


def edit_middle(run: Run) -> float:
    at = run.sizes.large // 2 // PAGE * PAGE
    descriptor = os.open(run.place / "large", os.O_WRONLY)
    os.pwrite(descriptor, b"e" * PAGE, at)
    os.close(descriptor)
    limit = time.monotonic() + 60
    while run.bucket.get(f"{run.prefix}large", at, PAGE) != b"e" * PAGE:
        if time.monotonic() > limit:
            raise TimeoutError("the change is not in the bucket")
        time.sleep(0.02)
    return 1


def write_eight(run: Run) -> float:
    """Eight large files at once, each from memory."""
    block = random.Random(4).randbytes(MiB)

    def one(number: int) -> None:
        with (run.place / f"file-{number}").open("wb", buffering=0) as file:
            for _ in range(run.sizes.large // MiB):
                file.write(block)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.bucket.wait_for(run.prefix, 8, 8 * run.sizes.large, 120)
    return 8 * run.sizes.large / 1e6


def sh(*command: Any) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
