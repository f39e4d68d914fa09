"""What is done in each contender's directory, and how much of it.

Owns: the loads, their material (random, from a fixed seed) and their sizes.
Must not know: what stands behind the directory.

The material is changed a little before each copy in: the embedded store keeps the same bytes only once, which would be no measurement.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MiB = 1 << 20
# What the issue of speed is about: one large file and a tree of small ones (a source tree: 0.5 to 16 KiB each, 50 to a directory).
LARGE_BYTES = 1024 * MiB
SMALL_FILES = 5000
RANDOM_OPERATIONS = 20_000
BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Material:
    """What is copied in; `scale` 1 is the full measurement."""

    folder: Path
    large_bytes: int
    small_files: int
    operations: int

    @property
    def large(self) -> Path:
        return self.folder / "large"

    @property
    def archive(self) -> Path:
        return self.folder / "small.tar"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def change_large(self, seed: str) -> None:
        with self.large.open("r+b") as file:
            file.write(seed.encode().ljust(64))

    def change_small(self, seed: str) -> None:
        write_archive(self.archive, self.small_files, seed=seed)


def prepare(folder: Path, scale: float) -> Material:
    large_bytes = max(MiB, int(LARGE_BYTES * scale))
    material = Material(folder, large_bytes, max(10, int(SMALL_FILES * scale)), max(100, int(RANDOM_OPERATIONS * scale)))
    folder.mkdir(parents=True)
    source = random.Random(1)
    with material.large.open("wb") as file:
        for _ in range(large_bytes // MiB):
            file.write(source.randbytes(MiB))
    return material


def write_archive(path: Path, files: int, *, seed: str) -> None:
    source = random.Random(seed)
    with tarfile.open(path, "w") as archive:
        for number in range(files):
            member = tarfile.TarInfo(f"tree/{number // 50:03d}/file-{number:05d}.txt")
            member.size = source.randrange(512, 16 * 1024)
            archive.addfile(member, io.BytesIO(source.randbytes(member.size)))


# -- loads: each returns how much it did, in its unit ------------------------------------------


def sh(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def copy_in(directory: Path, material: Material) -> float:
    sh("cp", str(material.large), str(directory / "large"))
    return material.large_bytes / 1e6


def copy_in_synced(directory: Path, material: Material) -> float:
    sh("dd", f"if={material.large}", f"of={directory / 'large-synced'}", "bs=1M", "conv=fsync", "status=none")
    return material.large_bytes / 1e6


def copy_out(directory: Path, material: Material) -> float:
    sh("cp", str(directory / "large"), str(material.out))
    material.out.unlink()
    return material.large_bytes / 1e6


def read_sequentially(directory: Path, material: Material) -> float:
    buffer = bytearray(MiB)
    with (directory / "large").open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return material.large_bytes / 1e6


def unpack(directory: Path, material: Material) -> float:
    (directory / "unpacked").mkdir()
    sh("tar", "xf", str(material.archive), "-C", str(directory / "unpacked"))
    return material.small_files


def unpack_synced(directory: Path, material: Material) -> float:
    """As a careful tar would: fsync before each close."""
    target = directory / "unpacked-synced"
    with tarfile.open(material.archive) as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            path = target / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.write(content.read())
                file.flush()
                os.fsync(file.fileno())
    return material.small_files


def pack(directory: Path, material: Material) -> float:
    """Through a pipe: tar reads nothing at all when its output is /dev/null."""
    with subprocess.Popen(["tar", "cf", "-", "-C", str(directory), "unpacked"], stdout=subprocess.PIPE) as tar:
        subprocess.run(["cat"], stdin=tar.stdout, stdout=subprocess.DEVNULL, check=True)
    return material.small_files


def list_all(directory: Path, material: Material) -> float:
    sh("ls", "-lR", str(directory / "unpacked"))
    return material.small_files


def offsets(material: Material) -> list[int]:
    source = random.Random(2)
    return [source.randrange(material.large_bytes // BLOCK) * BLOCK for _ in range(material.operations)]


def read_randomly(directory: Path, material: Material) -> float:
    descriptor = os.open(directory / "large", os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    for offset in offsets(material):
        os.pread(descriptor, BLOCK, offset)
    os.close(descriptor)
    return material.operations


def write_randomly(directory: Path, material: Material) -> float:
    write_blocks(directory / "large", offsets(material), seed=3)
    return material.operations


def write_randomly_synced(directory: Path, material: Material) -> float:
    """A tenth of the operations, each in an open, write, fsync, close of its own, as a database commits."""
    some = offsets(material)[: max(10, material.operations // 10)]
    for number, offset in enumerate(some):
        write_blocks(directory / "large", [offset], seed=4 + number, synced=True)
    return len(some)


def write_blocks(path: Path, at: list[int], *, seed: int, synced: bool = False) -> None:
    source = random.Random(seed)
    descriptor = os.open(path, os.O_RDWR)
    for offset in at:
        os.pwrite(descriptor, source.randbytes(BLOCK), offset)
    if synced:
        os.fsync(descriptor)
    os.close(descriptor)


def remove_all(directory: Path, material: Material) -> float:
    shutil.rmtree(directory / "unpacked")
    return material.small_files


@dataclass(frozen=True, slots=True)
class Load:
    """One line of the table.

    `fresh`: the contender is mounted anew before, so that nothing is in its page cache. `change`: the material is changed before.
    """

    title: str
    unit: str
    run: Callable[[Path, Material], float]
    fresh: bool = False
    change: Callable[[Material, str], None] | None = None


# In this order: what one load leaves the next one needs.
LOADS = (
    Load("cp in, 1 GiB", "MB/s", copy_in, change=Material.change_large),
    Load("copy in, 1 GiB, fsync before close", "MB/s", copy_in_synced, change=Material.change_large),
    Load("cp out, 1 GiB", "MB/s", copy_out, fresh=True),
    Load("sequential read, page cache dropped", "MB/s", read_sequentially, fresh=True),
    Load("4 KiB random reads", "per s", read_randomly, fresh=True),
    Load("4 KiB random writes, one close", "per s", write_randomly),
    Load("4 KiB write + fsync + close each", "per s", write_randomly_synced),
    Load("tar x, 5000 small files", "files/s", unpack, change=Material.change_small),
    Load("unpack, 5000 files, fsync before close", "files/s", unpack_synced, change=Material.change_small),
    Load("tar c, 5000 small files", "files/s", pack, fresh=True),
    Load("ls -lR, 5000 files", "files/s", list_all, fresh=True),
    Load("ls -lR again", "files/s", list_all),
    Load("rm -r, 5000 files", "files/s", remove_all),
)
