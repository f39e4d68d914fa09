"""Looking after the folder while it is served: sweeping, abandoned uploads, a slow scrub, a new index.

Owns: when each is done, how fast at most, that nothing of it outlives the server.
Must not know: how the engine does it.

Everything runs in one thread of its own, one thing after another: maintenance never takes more than one core's worth of work, nor more
of the medium than `scrub_rate`. Of several workers the first does it. A process that serves the same folder besides may do the same at the
same time: all of it is safe to do twice.

When the last scrub ended is the time of the file `scrubbed` in the data folder, so that a restart does not begin another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from s3mount.engine.engine import Engine
from s3mount.engine.lock import turn
from s3mount.errors import NoSuchUpload, StoreError
from s3mount.server.figures import Row

log = logging.getLogger("s3mount.server")

# How often abandoned uploads are looked for: what was abandoned for days may be so for ten minutes more.
UPLOADS_SECONDS = 600.0

# After something failed it is tried again, but not at once.
RETRY_SECONDS = 300.0

# A scrub that is behind its rate sleeps at most this long at a time, so that it notices the end of the server.
NAP_SECONDS = 0.5


class Stopped(Exception):
    """The server ends: leave it for the next time."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds between, or of age (0: never); bytes per second."""

    sweep_s: float
    uploads_s: float
    scrub_s: float
    scrub_bytes_per_s: int


@dataclass(slots=True)
class Job:
    """Something that is done every *every* seconds, the next time at *due*."""

    name: str
    every: float
    run: Callable[[], None]
    due: float = field(default=0.0)


class Maintenance:
    """The upkeep of one folder, in a thread. `start` once, `stop` before the engine is closed."""

    def __init__(self, engine: Engine, bounds: Bounds, row: Row, *, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._bounds = bounds
        self._row = row
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        now = clock()
        self._jobs = [
            Job("sweep", bounds.sweep_s, self.sweep, now + bounds.sweep_s),
            Job("abandoned uploads", bounds.uploads_s and min(UPLOADS_SECONDS, bounds.uploads_s), self.abort_abandoned, now),
            Job("scrub", bounds.scrub_s, self.scrub, _last_scrub(self._note, now) + bounds.scrub_s),
        ]

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="s3mount-maintenance", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """On return nothing of it runs. Idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            for job in self._jobs:
                if job.every and job.due <= self._clock() and not self._stop.is_set():
                    self._do(job)
            dues = [job.due for job in self._jobs if job.every]
            self._stop.wait(max(1.0, min(dues) - self._clock()) if dues else None)

    def _do(self, job: Job) -> None:
        pause = job.every
        try:
            job.run()
        except Stopped:
            pass
        except (StoreError, OSError) as error:
            log.warning("Maintenance failed (%s): %s", job.name, error)
            pause = min(RETRY_SECONDS, job.every)
        except Exception:
            log.exception("A defect: maintenance failed (%s).", job.name)
        job.due = self._clock() + pause

    # -- the jobs -----------------------------------------------------------------------

    def sweep(self) -> None:
        """Remove what crashed processes left."""
        report = self._engine.sweep()
        self._row.add("sweeps_total")
        if report.bytes:
            log.info("Swept %d bytes of leftovers.", report.bytes)

    def abort_abandoned(self) -> None:
        """Abort uploads that nobody began, or sent a part of, within the set time."""
        oldest_kept_ns = int((self._clock() - self._bounds.uploads_s) * 1e9)
        for bucket in self._engine.buckets():
            for upload in self._engine.uploads(bucket.name):
                if self._stop.is_set():
                    raise Stopped
                if upload.started_ns >= oldest_kept_ns:
                    continue
                try:
                    if max((part.mtime_ns for part in self._engine.part_infos(bucket.name, upload)), default=0) < oldest_kept_ns:
                        self._engine.abort_upload(bucket.name, upload)
                        self._row.add("aborted_uploads_total")
                        log.info("An abandoned upload of %r in %s was aborted.", upload.key, bucket.name)
                except NoSuchUpload:
                    continue

    def scrub(self) -> None:
        """Verify every stored byte, at no more than the set rate. Raises Stopped."""
        begun, done_before = time.monotonic(), 0

        def pace(done: int, total: int) -> None:
            nonlocal done_before
            self._row.add("scrubbed_bytes_total", done - done_before)
            done_before = done
            while (ahead := done / self._bounds.scrub_bytes_per_s - (time.monotonic() - begun)) > 0:
                if self._stop.wait(min(ahead, NAP_SECONDS)):
                    raise Stopped
            if self._stop.is_set():
                raise Stopped

        report = self._engine.scrub(pace)
        self._row.add("damages_total", len(report.damaged))
        for sentence in report.damaged:
            log.error("The scrub found damage: %s", sentence)
        log.info("Scrubbed %d bytes.", report.bytes)
        self._note.touch()

    @property
    def _note(self) -> Path:
        return self._engine.folder / "scrubbed"


def _last_scrub(note: Path, now: float) -> float:
    """When it ended; a folder that never was is taken for new, and its first comes after a whole interval."""
    try:
        return note.stat().st_mtime
    except FileNotFoundError:
        note.touch()
        return now


class Rebuilder:
    """`POST /{bucket}?rebuildIndex`: a new index in the background, one at a time on a folder, whoever serves it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread: threading.Thread | None = None

    def begin(self) -> bool:
        """Whether one was begun; False while another runs, here or in another process."""
        begun = threading.Event()
        answer: list[bool] = []

        def run() -> None:
            with turn(self._engine.folder / "rebuilding", wait=False) as ours:
                answer.append(ours)
                begun.set()
                if ours:
                    self._rebuild()

        thread = threading.Thread(target=run, name="s3mount-rebuild", daemon=True)
        thread.start()
        begun.wait()
        if answer[0]:
            self._thread = thread
        return answer[0]

    def join(self) -> None:
        """On return none runs here: one that was begun is finished, or has failed."""
        if self._thread is not None:
            self._thread.join()

    def _rebuild(self) -> None:
        try:
            records = self._engine.rebuild_index()
            log.info("The index was made anew from %d records.", records)
        except (StoreError, OSError) as error:
            log.error("The index was not made anew: %s", error)
        except Exception:
            log.exception("A defect: the index was not made anew.")
