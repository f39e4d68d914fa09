"""A mount of s3:// in bad weather, with applications that insist: what was acknowledged is in the bucket, and nothing else was touched.

SOAK_SECONDS and SOAK_SEED say how long and which; the count of each fault is printed.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from s3mount.fs.attrs import Defaults, decode
from s3mount.fuse import mountpoint
from s3mount.model import MiB
from tests.fuse.conftest import AS_ROOT
from tests.fuse.mounting import Mount, s3mount
from tests.fuse.remote import boto, isolate, remote
from tests.server.serving import served
from tests.soak.crowd import PLACES, Crowd
from tests.soak.insistent import NOTE, Insistent, Note, Weather
from tests.wire.faults import DENIED, INTERNAL_ERROR, SLOW_DOWN, Rule
from tests.wire.front import Front

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

BUCKET = "soaked"
APPLICATIONS = 4
# Files of the directory that is renamed behind its users' backs, and up to how many are renamed before their eyes: (soak, short).
CROWDS = {True: (1100, 1000), False: (130, 100)}
SMALL_STAGING = Path(__file__).parent / "small_staging.py"
STAGING_BYTES = 96 * MiB
LET_GO_S = 20.0
MUTATIONS = ("PUT", "COPY", "DELETE", "DeleteObjects", "UploadPart", "UploadPartCopy", "Complete")
# Not the beginning of an upload: of two of one key whose answers were lost at once neither is known for ours, and neither is aborted.
ANSWERED = (*MUTATIONS, "GET", "GET-range", "HEAD", "LIST")
# Time-outs of seconds, for tests; the proportions are a user's.
IMPATIENT = ("--connect-timeout", "2", "--first-byte-timeout", "3", "--stall-timeout", "3", "--retry-for", "15")


@dataclass
class Scene:
    """A bucket behind a faulty front, mounted, with objects and an upload of somebody else among those of our applications."""

    front: Front
    direct: Any
    mount: Mount
    staging: Path
    late: bool
    crowd: Mapping[str, bytes]
    weather: Weather = field(default_factory=Weather)
    tally: Counter[str] = field(default_factory=Counter)
    foreign: Mapping[str, tuple[str, object]] = field(default_factory=dict)
    upload: str = ""

    def settle(self) -> None:
        """Objects of others: beside the applications' directories and among their names."""
        for number in range(APPLICATIONS):
            for key in (f"app-{number}/not yours", f"app-{number}x", f"app-{number}/one-more", "top"):
                self.direct.put_object(Bucket=BUCKET, Key=key, Body=key.encode() * 100)
        with ThreadPoolExecutor(APPLICATIONS) as pool:
            list(pool.map(lambda name: self.direct.put_object(Bucket=BUCKET, Key=f"crowd/{name}", Body=self.crowd[name]), self.crowd))
        self.foreign = self.seen_of_others()
        self.upload = self.direct.create_multipart_upload(Bucket=BUCKET, Key="app-0/file-0")["UploadId"]

    def seen_of_others(self) -> Mapping[str, tuple[str, object]]:
        keys = [key for key in self.objects() if key == "top" or key.endswith(("not yours", "x", "one-more"))]
        found = {key: self.direct.head_object(Bucket=BUCKET, Key=key) for key in keys}
        return {key: (head["ETag"], head["LastModified"]) for key, head in found.items()}

    def objects(self) -> list[str]:
        pages = self.direct.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def body(self, key: str) -> tuple[bytes | None, Note | None]:
        try:
            found = self.direct.get_object(Bucket=BUCKET, Key=key)
        except self.direct.exceptions.NoSuchKey:
            return None, None
        said = decode(found["Metadata"], directory=False, mtime_ns=0, defaults=Defaults(0o644, 0o755, 0, 0))
        value = said.xattrs.get(NOTE.encode())
        return found["Body"].read(), None if value is None else Note(said.mode & 0o7777, value)

    def require_stored(self, application: str, name: str, content: bytes | None, note: Note | None) -> None:
        """An acknowledged change is in the bucket now, not soon; but soon with --write-back."""
        if self.late:
            return
        found, said = self.body(f"{application}/{name}")
        assert found == content, f"{application}/{name} was acknowledged and is not in the bucket: {difference(found, content)}"
        assert said == note, f"{application}/{name} was acknowledged as {note}; the bucket says {said}"

    # -- weather --------------------------------------------------------------------------

    def blow(self, name: str, seconds: float, *rules: Rule) -> None:
        self.front.reset()
        self.front.spoil(*rules)
        time.sleep(seconds)
        self.front.spoil()
        for fault, count in self.front.counts()["all"].faults.items():
            self.tally[f"{name}: {fault}"] += count

    def storm(self, seconds: float, seed: int) -> None:
        self.blow("storm", seconds, replace(SLOW_DOWN, chance=0.2, seed=seed), replace(INTERNAL_ERROR, chance=0.1, seed=seed + 1))

    def broken_lines(self, seconds: float, seed: int) -> None:
        rules = [Rule(fault, ANSWERED, chance=0.1, seed=seed + n) for n, fault in enumerate(("reset", "truncate"))]
        rules += [Rule(fault, chance=0.1, seed=seed + n) for n, fault in enumerate(("reset_upload", "lost_request"), 2)]
        self.blow("broken lines", seconds, *rules)

    def lost_replies(self, seconds: float, seed: int) -> None:
        self.blow("lost replies", seconds, Rule("lost_reply", MUTATIONS, chance=0.3, seed=seed))

    def revoked(self, seconds: float, seed: int) -> None:
        self.blow("credentials revoked", min(seconds, 1.0), DENIED)

    def unreachable(self, seconds: float, seed: int) -> None:
        self.front.away()
        time.sleep(min(seconds, 1.5))
        self.front.back()
        self.tally["endpoint away"] += 1

    def full_disk(self, seconds: float, seed: int) -> None:
        ballast = self.staging / "ballast"
        try:
            with ballast.open("wb") as file:
                while True:
                    file.write(bytes(MiB))
        except OSError:
            self.tally["staging disk full"] += 1
        time.sleep(seconds / 2)
        ballast.unlink()

    def kill(self, seconds: float, seed: int) -> None:
        """kill -9 in mid-work, on a day that is bad already; then the next mount."""
        self.front.spoil(Rule("lost_reply", MUTATIONS, chance=0.2, seed=seed))
        time.sleep(0.3 + seed % 10 / 20)
        self.weather.up.clear()
        self.weather.falls += 1
        try:
            self.mount.kill()
            self.front.spoil()
            self.mount.start()
        finally:
            self.weather.up.set()
        self.tally["kill -9 and remount"] += 1

    # -- the end --------------------------------------------------------------------------

    def require_all(self, applications: list[Insistent]) -> None:
        expected = {f"{one.home.name}/{name}": content for one in applications for name, content in one.world.items()}
        ours = {key for key in self.objects() if not key.endswith("/")} - set(self.foreign)
        assert ours - {f"{one.home.name}/temporary" for one in applications} == set(expected), "names"
        notes = {f"{one.home.name}/{name}": note for one in applications for name, note in one.notes.items()}
        wrong = [key for key, content in expected.items() if self.body(key) != (content, notes.get(key))]
        assert not wrong, f"wrong content, mode or attribute: {wrong}"
        assert self.seen_of_others() == self.foreign, "somebody else's objects were touched"
        uploads = [(entry["Key"], entry["UploadId"]) for entry in self.direct.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())]
        assert uploads == [("app-0/file-0", self.upload)], "uploads of ours are left, or somebody else's is gone"


def difference(found: bytes | None, content: bytes | None) -> str:
    if found is None or content is None:
        return "there is nothing" if found is None else "it is still there"
    pairs = enumerate(zip(found, content, strict=False))
    first = next((at for at, (one, other) in pairs if one != other), min(len(found), len(content)))
    return f"{len(found)} bytes for {len(content)}, wrong from byte {first} on"


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A small file system of the test's own; an ordinary directory for others than root."""
    folder.mkdir()
    if not AS_ROOT:
        yield folder
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={STAGING_BYTES}", "s3mount-test", folder], check=True)
    try:
        yield folder
    finally:
        mountpoint.detach(folder)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """With the options of `mount` that the test's parameter names."""
    isolate(monkeypatch, tmp_path)
    (tmp_path / "server").mkdir()
    with served(tmp_path / "server") as server, Front(f"{server.host}:{server.port}") as front, small_disk(tmp_path / "staging") as staging:
        crowd, at_once = CROWDS[request.node.get_closest_marker("soak") is not None]
        monkeypatch.setenv("STAGING", str(staging))
        monkeypatch.setenv("ANSWER_KEYS", str(at_once))
        direct = boto(server.url, max_pool_connections=20)
        direct.create_bucket(Bucket=BUCKET)
        options = ("--metadata-ttl", "0.5", *IMPATIENT, *getattr(request, "param", ()))
        mount = remote(tmp_path / "mounted", front.url, BUCKET, *options, program=(SMALL_STAGING,))
        # It may complain of the weather as it likes, but not of itself.
        mount.expected = [r"\A(?!(?:.|\n)*Traceback)"]
        files = {f"{PLACES[0]}/{number:04}": f"file {number} of many".encode() for number in range(crowd)}
        scene = Scene(front, direct, mount, staging, late="--write-back" in options, crowd=files)
        scene.settle()
        try:
            mount.start()
            yield scene
        finally:
            mount.clean_up()
            direct.close()


def soak(scene: Scene, seconds: float, seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    end = time.monotonic() + seconds
    top = scene.mount.path
    applications = [
        Insistent(top / name, seed * 100 + number, scene.weather, partial(scene.require_stored, name))
        for number, name in enumerate(f"app-{number}" for number in range(APPLICATIONS))
    ]
    told = partial(scene.require_stored, "crowd")
    applications.append(Crowd(top / "crowd", seed * 100 + APPLICATIONS, scene.weather, told, dict(scene.crowd)))
    watchdog = threading.Timer(seconds + 300, scene.mount.clean_up)
    watchdog.start()
    try:
        with ThreadPoolExecutor(len(applications)) as pool:
            lives = [pool.submit(one.live, lambda: time.monotonic() > end) for one in applications]
            weather(scene, end, seed, lambda: any(life.done() for life in lives))
            for life in lives:
                life.result()
        require_nothing_staged(scene)
    except BaseException:
        with capfd.disabled():
            print(state_of(scene))  # noqa: T201 (what it is for)
        raise
    else:
        # The next mount finishes what the crashes interrupted, and takes away what they left.
        scene.mount.again()
        scene.mount.stop()
    finally:
        watchdog.cancel()
        with capfd.disabled():
            report(scene, applications, seed)
    scene.require_all(applications)


def weather(scene: Scene, end: float, seed: int, over: Callable[[], bool]) -> None:
    """Every fault in turn, in an order of the seed's, with calm between; until *end*, or an application has stopped."""
    rng = random.Random(seed)
    faults = [scene.storm, scene.broken_lines, scene.lost_replies, scene.unreachable, scene.kill]
    if not scene.late:
        faults.append(scene.revoked)  # with --write-back what was refused waits for somebody who decides
    if AS_ROOT:
        faults.append(scene.full_disk)
    while True:
        for fault in rng.sample(faults, len(faults)):
            if time.monotonic() > end or over():
                return
            fault(rng.uniform(0.5, 3.0), rng.randrange(1 << 20))
            time.sleep(rng.uniform(0.2, 1.0))


def report(scene: Scene, applications: list[Insistent], seed: int) -> None:
    told: Counter[str] = sum((one.told for one in applications), Counter())
    print(f"\nSOAK_SEED={seed}")  # noqa: T201 (what it is for)
    for title, counts in (("faults", scene.tally), ("applications", told)):
        print(f"{title}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))  # noqa: T201


def require_nothing_staged(scene: Scene) -> None:
    """What is committed takes no room any more. (The kernel lets go of closed files when it likes.)"""
    assert s3mount("flush", scene.mount.path).returncode == 0
    deadline = time.monotonic() + LET_GO_S
    while AS_ROOT and (room := os.statvfs(scene.staging)).f_bfree < room.f_blocks:
        assert time.monotonic() < deadline, f"{(room.f_blocks - room.f_bfree) * room.f_frsize} bytes stay in the staging folder"
        time.sleep(0.05)


def state_of(scene: Scene) -> str:
    """How full its staging folder is, and what the mount says of itself, for whoever looks into a failure.

    No fault takes the mount off. Where it is off, somebody has told it to end: names that are missing then are no find.
    """
    room = os.statvfs(scene.staging)
    mounted = "mounted" if mountpoint.mounted_at(scene.mount.path) else "NOT MOUNTED (ended from outside?)"
    return f"{mounted}, staging: {room.f_bavail * room.f_frsize} bytes free\n{s3mount('status', scene.mount.path).stdout}"


def chosen_seed(default: int) -> int:
    return int(os.environ.get("SOAK_SEED", default))


WAYS = pytest.mark.parametrize("scene", [(), ("--write-back",)], ids=["at once", "written back"], indirect=True)


@WAYS
def test_what_was_acknowledged_in_bad_weather_is_in_the_bucket(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    soak(scene, 20.0, chosen_seed(1), capfd)


@WAYS
@pytest.mark.soak
def test_what_was_acknowledged_in_minutes_of_bad_weather_is_in_the_bucket(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    soak(scene, float(os.environ.get("SOAK_SECONDS", 240)), chosen_seed(random.SystemRandom().randrange(1 << 30)), capfd)
