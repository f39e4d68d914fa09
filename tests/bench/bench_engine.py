"""Figures of the embedded store: run it by name; it prints and asserts nothing.

python tests/bench/bench_engine.py [objects, default 1000000] [folder, default a temporary one]
"""

from __future__ import annotations

import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from s3mount.engine.engine import Engine
from s3mount.engine.values import How
from s3mount.model import Content, GiB, Kept, Key, Matches, MiB, ObjectInfo, Staged

BUCKET = "bench"
METADATA = {"mode": "33188", "uid": "1000", "gid": "1000", "mtime": "1700000000.123456789"}


class Bytes:
    """Staged bytes in memory."""

    path: Path | None = None

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self._data = data

    def read_into(self, position: int, buffer: memoryview) -> None:
        buffer[:] = self._data[position : position + len(buffer)]


def report(what: str, value: float, unit: str, cpu: float | None = None) -> None:
    tail = "" if cpu is None else f"   (processor {cpu:,.1f})"
    sys.stdout.write(f"{what:<58}{value:>12,.1f} {unit}{tail}\n")
    sys.stdout.flush()


def each(keys: Sequence[Key], run: Callable[[Key], object]) -> Callable[[], None]:
    def loop() -> None:
        for key in keys:
            run(key)

    return loop


def timed(what: str, run: Callable[[], object], *, count: int = 1, unit: str = "s") -> None:
    scale = {"s": 1.0, "ms": 1e3, "us": 1e6}[unit]
    start, used = time.perf_counter(), time.process_time()
    run()
    wall, used = time.perf_counter() - start, time.process_time() - used
    report(what, wall / count * scale, unit, used / count * scale)


def names(count: int, prefix: str) -> Iterator[Key]:
    return (Key(f"{prefix}{number // 1000:04}/{number % 1000:03}.txt") for number in range(count))


def small_objects(engine: Engine, count: int) -> None:
    how = How(metadata=METADATA)
    some = random.Random(1)
    items = ((key, b"%d" % number, how) for number, key in enumerate(names(count, "many/")))
    timed(f"put_many of {count:,} objects", lambda: engine.put_many(BUCKET, items, durable=False), unit="s")
    sample = [Key(f"many/{(n := some.randrange(count)) // 1000:04}/{n % 1000:03}.txt") for _ in range(5000)]
    timed("head", lambda: [engine.head(BUCKET, key) for key in sample], count=len(sample), unit="us")
    timed("find", lambda: [engine.find(BUCKET, key) for key in sample], count=len(sample), unit="us")
    timed("open_object and close", each(sample, lambda key: engine.open_object(BUCKET, key).close()), count=len(sample), unit="us")
    timed("page of 1000 keys", lambda: [engine.list(BUCKET, "many/", after=key) for key in sample[:50]], count=50, unit="ms")
    timed(
        "page of 1000 common prefixes (each of 1000 keys)",
        lambda: [engine.list(BUCKET, "many/", delimiter="/") for _ in range(10)],
        count=10,
        unit="ms",
    )
    timed("rename_prefix of all", lambda: engine.rename_prefix(BUCKET, "many/", "more/", durable=False), unit="s")
    timed("sync", engine.sync, unit="s")


def small_changes(engine: Engine, count: int = 5000) -> None:
    how = How(metadata=METADATA)
    data = [b"%08d" % number * 512 for number in range(count)]
    keys = list(names(count, "small/"))
    fresh = iter(data)
    timed(
        "put 4 KiB, not durable", each(keys, lambda key: engine.put(BUCKET, key, next(fresh), how, durable=False)), count=count, unit="us"
    )
    timed("put 4 KiB over it, durable", each(keys[:200], lambda key: engine.put(BUCKET, key, data[0])), count=200, unit="us")
    large = iter([os.urandom(100_000) for _ in range(300)])
    timed(
        "put 100 KiB, not durable", each(keys[:300], lambda key: engine.put(BUCKET, key, next(large), durable=False)), count=300, unit="us"
    )
    timed("sync of these", engine.sync, unit="ms")
    timed("update metadata", each(keys, lambda key: engine.update(BUCKET, key, METADATA, durable=False)), count=count, unit="us")
    timed("rename", each(keys, lambda key: engine.rename(BUCKET, key, Key(f"{key}x"), durable=False)), count=count, unit="us")
    timed("delete", each(keys, lambda key: engine.delete(BUCKET, Key(f"{key}x"), durable=False)), count=count, unit="us")
    engine.sync()


def edit(engine: Engine, base: ObjectInfo, offset: int, data: bytes) -> ObjectInfo:
    pieces = (Kept(0, offset), Staged(offset, len(data), Bytes(data), 0), Kept(offset + len(data), base.size - offset - len(data)))
    content = Content(base.size, tuple(piece for piece in pieces if piece.length), base)
    how = How(condition=Matches(base.etag), file_id=base.file_id, metadata=METADATA)
    return engine.adopt(BUCKET, base.key, content, how, durable=False)


def written_bytes() -> int:
    """What this process caused to be written to the medium."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def edits(engine: Engine, count: int = 2000) -> None:
    path = engine.staging / "whole"
    with path.open("wb") as file:
        for _ in range(GiB // (8 * MiB)):
            file.write(os.urandom(8 * MiB))
    source = Bytes(b"")
    source.path, source.length = path, GiB
    start = time.perf_counter()
    info = engine.adopt(BUCKET, Key("big"), Content(GiB, (Staged(0, GiB, source, 0),)), durable=False)
    report("adopt of 1 GiB (hash and rename)", time.perf_counter() - start, "s")
    engine.sync()
    some = random.Random(2)
    before, start = written_bytes(), time.perf_counter()
    for _ in range(count):
        info = edit(engine, info, some.randrange(GiB // 4096) * 4096, some.randbytes(4096))
        engine.sync(BUCKET, info.key)
    report("4 KiB edit and sync in 1 GiB", (time.perf_counter() - start) / count * 1e6, "us")
    report("bytes written for it (log, index)", (written_bytes() - before) / count / 1024, "KiB")
    timed(f"open_object with {count} edits", lambda: engine.open_object(BUCKET, info.key).close(), unit="ms")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        engine = Engine.open(Path(folder) / "data")
        engine.create_bucket(BUCKET)
        small_changes(engine)
        edits(engine)
        small_objects(engine, count)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".log")
        report("index on disk", (Path(folder) / "data" / "index.db").stat().st_size / MiB, "MiB")
        report("everything else but the log", size / MiB, "MiB")
        report("peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB")
        timed("close", engine.close, unit="s")
        timed("open again", lambda: Engine.open(Path(folder) / "data").close(), unit="s")


if __name__ == "__main__":
    main()
