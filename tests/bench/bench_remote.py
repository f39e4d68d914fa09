"""Mounts of a remote bucket side by side: s3mount, s3fs and rclone on the same server, wire and work; a table, no verdict but the ratios.

Owns: the order, fresh mounts, patience, the table.
Must not know: what a row does, how anybody is mounted.

The server is `s3mount serve`; before it stands a front (tests/wire) that adds 30 ms to the first byte, lets each connection carry 90 MB/s,
and counts. Seconds drift on a busy machine, requests do not. Every row begins with a new mount, empty caches and the counters at nought;
CPU and memory are those of the mount's process. Writes end when the bytes are in the bucket.

BENCH_SCALE (default 1) scales sizes and numbers, BENCH_ROWS is a regular expression for titles, BENCH_MOUNTS names who takes part,
BENCH_PATIENCE the seconds after which somebody gives up at a row (default 120; three times as long at its preparation),
BENCH_FOLDER the disk.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.remote_field import BUCKET, MOUNTERS, Bucket, Cost, Mount, Mounter
from tests.bench.remote_loads import Run, Sizes, blocks, objects
from tests.bench.remote_rows import ROWS, Row
from tests.bench.remote_verdicts import LATENCY_S, RATE, Result, Results
from tests.leftovers import own_folders
from tests.wire.certificate import make_certificate
from tests.wire.front import Front

PATIENCE_S = float(os.environ.get("BENCH_PATIENCE", "120"))
ROOT = Path(__file__).parents[2]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Field:
    """The server, its fronts, and a folder; measures a row for one of the mounts."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self._folder = folder
        self._sizes = sizes
        self._number = 0
        self._bucket = Bucket(folder)
        self._fronts: dict[bool, Front] = {}
        self._certificate = folder

    def __enter__(self) -> Field:
        self._bucket.fill(objects(self._sizes))
        address = self._bucket.start()
        for name, size in (("large", self._sizes.large), ("medium", self._sizes.medium)):
            self._bucket.put(name, size, blocks(size))
        self._certificate, key = make_certificate(self._folder)
        self._fronts = {False: Front(address), True: Front(address, tls=(self._certificate, key))}
        return self

    def __exit__(self, *_: object) -> None:
        for front in self._fronts.values():
            front.close()
        self._bucket.stop()

    def loop(self, row: Row, verb: str, connections: int) -> Result:
        front = self._wire(row)
        target = f"/{BUCKET}/{'large' if verb == 'read' else 'written/bare-loop'}"
        arguments = [verb, str(front.port), target, str(self._sizes.large), str(connections)]
        command = [sys.executable, "-m", "tests.bench.bare_loop", *arguments]
        said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout.split()
        return Result(self._sizes.large / 1e6, float(said[0]), front.counts(), Cost(float(said[1]), 0), [])

    def _wire(self, row: Row) -> Front:
        front = self._fronts[row.tls]
        front.set(latency_s=LATENCY_S * row.slow, rate=RATE / row.slow if row.slow else 0)
        front.reset()
        return front

    def measure(self, row: Row, mounter: Mounter) -> Result:
        """Raises RuntimeError, TimeoutError, OSError, AssertionError, CalledProcessError."""
        self._number += 1
        folder = self._folder / f"{self._number:03}"
        folder.mkdir()
        front = self._wire(row)
        mounts = [self._mount(row, mounter, front, folder)]

        def remount() -> None:
            mounts[-1].close()
            mounts.append(self._mount(row, mounter, front, folder))

        prefix = f"written/{self._number:03}/"
        run = Run(mounter.name, mounts[0].directory, folder, prefix, self._sizes, self._bucket, remount)
        try:
            if row.prepare:
                with patience(mounts, 3 * PATIENCE_S):
                    row.prepare(run)
            with patience(mounts, PATIENCE_S):
                return measured(row, run, front, mounts)
        finally:
            mounts[-1].close()
            shutil.rmtree(folder, ignore_errors=True)

    def _mount(self, row: Row, mounter: Mounter, front: Front, folder: Path) -> Mount:
        return Mount(mounter, front.url, folder, row.options, self._certificate if row.tls else None)


def measured(row: Row, run: Run, front: Front, mounts: list[Mount]) -> Result:
    front.reset()
    mounts[-1].watch.reset()
    began = time.perf_counter()
    amount = row.work(run)
    return Result(amount, time.perf_counter() - began, front.counts(), mounts[-1].watch.cost(), run.notes)


@contextmanager
def patience(mounts: list[Mount], seconds: float) -> Iterator[None]:
    """Whoever takes too long is killed, so that the work fails; then TimeoutError."""
    late = threading.Event()

    def end() -> None:
        late.set()
        mounts[-1].kill()

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        yield
    except Exception:
        if late.is_set():
            raise TimeoutError(f"gave up after {seconds:.0f} s") from None
        raise
    finally:
        timer.cancel()


# -- the table ---------------------------------------------------------------------------------


def line(name: str, unit: str, result: Result) -> str:
    figures = f"{result.rate:>10,.0f} {unit:<8}{result.seconds:>8.2f} s {result.cost.cpu_s:>7.2f} s {result.cost.peak_mib:>6,.0f} MiB"
    notes = f"   ({'; '.join(result.notes)})" if result.notes else ""
    return f"    {name:<10}{figures}   {result.counts}{notes}"


def why(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        said = (error.stderr or b"").decode(errors="replace") if isinstance(error.stderr, bytes) else ""
        return f"{error.cmd[0]} failed: {(said.strip().splitlines() or [str(error.returncode)])[0][:120]}"
    return f"{error or type(error).__name__}"[:200]


def play(field: Field, row: Row, mounters: list[Mounter], sizes: Sizes) -> None:
    say(f"{row.issue}  {row.title}{'' if row.slow else ' (no limits on the wire)'}")
    results: Results = {}
    if row.loop:
        results["bare loop"] = field.loop(row, *row.loop)
        say(line("bare loop", row.unit, results["bare loop"]))
    for mounter in mounters:
        if row.ours_only and mounter.name != "s3mount":
            continue
        try:
            results[mounter.name] = field.measure(row, mounter)
            say(line(mounter.name, row.unit, results[mounter.name]))
        except (RuntimeError, OSError, AssertionError, subprocess.SubprocessError) as error:
            say(f"    {mounter.name:<10}{why(error)}")
    if ours := results.pop("s3mount", None):
        say(f"    -> {row.verdict(ours, results, sizes)}")


def chosen_mounters() -> list[Mounter]:
    wanted = os.environ.get("BENCH_MOUNTS", "s3mount s3fs rclone").split()
    chosen = []
    for mounter in MOUNTERS:
        if mounter.name in wanted and (reason := mounter.why_not()):
            say(f"{mounter.name} takes no part: {reason}.")
        elif mounter.name in wanted:
            chosen.append(mounter)
    return chosen


def main() -> None:
    scale, wanted = float(os.environ.get("BENCH_SCALE", "1")), re.compile(os.environ.get("BENCH_ROWS", ""))
    sizes = Sizes.of(scale)
    folder = Path(tempfile.mkdtemp(prefix="s3mount-bench-", dir=os.environ.get("BENCH_FOLDER")))
    os.environ.update(own_folders(folder))
    say(f"scale {scale:g}; {LATENCY_S * 1000:.0f} ms to the first byte, {RATE / 1e6:.0f} MB/s per connection")
    if scale != 1:
        say("what is to be reached holds for scale 1")
    say("per line: rate, time, CPU and peak memory of the mount, requests")
    mounters = chosen_mounters()
    try:
        with Field(folder, sizes) as field:
            for row in ROWS:
                if wanted.search(row.title):
                    play(field, row, mounters, sizes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
