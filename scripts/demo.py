"""`make demo`: a bucket is made, mounted, worked in with ordinary programs, mounted again, and compared with a plain directory.

Owns: the show. Whatever is done in the mount is done in a plain directory too, which is what the mount is compared with.
Must not know: s3mount's code; it runs the commands that a user would type.

Everything lies in one temporary folder, which is removed at the end, after a failure too.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

S3MOUNT = Path(sys.executable).with_name("s3mount")
STDLIB = Path(sysconfig.get_path("stdlib"))
# Not the standard library, though installed below it; and what Python writes there itself.
NOT_STDLIB = ("site-packages", "dist-packages", "__pycache__")
# Longer than any step takes on a slow machine: beyond it something hangs.
STEP_SECONDS = 600
PYTHON_COPY = "python"


class Failed(Exception):
    """A step did not do what it should; the text says which and how."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the show takes place."""

    data: Path
    mount: Path
    plain: Path
    log: Path


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(command: str, *, folder: Path, environment: dict[str, str] | None = None) -> str:
    """What *command* (for the shell) prints; raises Failed with its complaint."""
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=STEP_SECONDS
    )
    if done.returncode != 0:
        raise Failed(f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}".rstrip())
    return done.stdout


def seconds(command: str, folder: Path) -> tuple[float, str]:
    began = time.perf_counter()
    output = run(command, folder=folder)
    return time.perf_counter() - began, output


def s3mount(places: Places, arguments: str) -> str:
    return run(
        f"{shlex.quote(str(S3MOUNT))} {arguments}", folder=places.plain, environment={**os.environ, "S3MOUNT_DATA": str(places.data)}
    )


def in_both(places: Places, what: str, command: str) -> str:
    """Run *command* in the mount and in the plain directory; the same must come out of it."""
    here, output = seconds(command, places.mount)
    there, expected = seconds(command, places.plain)
    if output != expected:
        raise Failed(f"'{command}' does not say the same in the mount as in a plain directory")
    say(f"  {what:<44} {here:6.2f} s   (plain directory {there:.2f} s)   $ {command}")
    return output


def compare(places: Places) -> None:
    took, _ = seconds(f"diff -r --no-dereference {shlex.quote(str(places.plain))} {shlex.quote(str(places.mount))}", places.plain)
    say(f"  {'everything compared with the plain directory':<44} {took:6.2f} s   no difference")


def mount(places: Places, *, create: bool = False) -> None:
    options = "--create " if create else ""
    took = -time.perf_counter()
    # Where there is no system log, the log would stay in the runtime folder.
    s3mount(places, f"mount {options}--log-file {shlex.quote(str(places.log))} local://demo {shlex.quote(str(places.mount))}")
    took += time.perf_counter()
    say(f"  {'mounted':<44} {took:6.2f} s   $ s3mount mount {options}local://demo MOUNTPOINT")


def unmount(places: Places) -> None:
    took = -time.perf_counter()
    s3mount(places, f"umount {shlex.quote(str(places.mount))}")
    took += time.perf_counter()
    say(f"  {'unmounted, all of it committed':<44} {took:6.2f} s   $ s3mount umount MOUNTPOINT")


def copy_stdlib(target: Path) -> None:
    shutil.copytree(STDLIB, target, symlinks=True, ignore=shutil.ignore_patterns(*NOT_STDLIB), ignore_dangling_symlinks=True)


def measure(tree: Path) -> tuple[int, int]:
    """Number and bytes of the files in *tree*."""
    sizes = [path.lstat().st_size for path in tree.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def copy_in(places: Places, library: Path) -> None:
    files, size = measure(library)
    began = time.perf_counter()
    run(f"cp -a {shlex.quote(str(library))} {PYTHON_COPY}", folder=places.mount)
    here = time.perf_counter() - began
    there, _ = seconds(f"cp -a {shlex.quote(str(library))} {PYTHON_COPY}", places.plain)
    what = f"{files} files, {size / 1e6:.0f} MB copied in"
    say(f"  {what:<44} {here:6.2f} s   (plain directory {there:.2f} s)   $ cp -a {STDLIB} {PYTHON_COPY}")


def work(places: Places) -> None:
    in_both(places, "listed", f"find {PYTHON_COPY} | LC_ALL=C sort | wc -l")
    found = in_both(places, "searched", f"grep -rl --include='*.py' 'def __enter__' {PYTHON_COPY} | LC_ALL=C sort")
    say(f"    {len(found.splitlines())} files found, {found.splitlines()[0]} among them")
    in_both(places, "edited in place", f"sed -i 's/object/Gegenstand/g' {PYTHON_COPY}/json/*.py")
    in_both(places, "appended to", f"echo '# the end' >> {PYTHON_COPY}/this.py; tail -n 2 {PYTHON_COPY}/this.py")
    in_both(places, "a file renamed", f"mv {PYTHON_COPY}/this.py {PYTHON_COPY}/that.py")
    in_both(places, "a tree renamed, in one transaction", f"mv {PYTHON_COPY} serpent")
    in_both(places, "a tree removed", "rm -r serpent/email")
    in_both(
        places,
        "packed and unpacked",
        "mkdir again && tar cf - serpent/json | tar xf - -C again && diff -r serpent/json again/serpent/json",
    )


def show(places: Places, library: Path) -> None:
    say("A bucket in the embedded store, mounted as a directory:")
    mount(places, create=True)
    copy_in(places, library)
    compare(places)
    work(places)
    compare(places)
    say("Mounted again: everything is still there.")
    unmount(places)
    mount(places)
    compare(places)
    unmount(places)
    objects, size = measure(places.plain)
    say(f"Done: {objects} objects of {size / 1e6:.0f} MB were worked on, as in a local directory.")


def next_lines() -> str:
    program = os.path.relpath(S3MOUNT)
    return f"Next, a bucket of your own:\n  mkdir -p ~/bucket\n  {program} mount --create local://mine ~/bucket"


@contextmanager
def stage() -> Iterator[tuple[Places, Path]]:
    """The places and a copy of the library; all gone afterwards, the mount first."""
    folder = Path(tempfile.mkdtemp(prefix="s3mount-demo-"))
    places = Places(data=folder / "data", mount=folder / "mount", plain=folder / "plain", log=folder / "log")
    try:
        places.mount.mkdir()
        places.plain.mkdir()
        library = folder / "library"
        copy_stdlib(library)
        yield places, library
    finally:
        # A complaint only if nothing is mounted any more, which is the usual case.
        subprocess.run(["fusermount3", "-u", "-z", "-q", str(places.mount)], stderr=subprocess.DEVNULL, check=False)
        remove(folder)


def remove(folder: Path) -> None:
    """Remove *folder*; a mount process that is just ending may still write in it."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.5)
    sys.stderr.write(f"{folder} could not be removed whole.\n")


def stop(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    signal.signal(signal.SIGTERM, stop)
    try:
        with stage() as (places, library):
            show(places, library)
    except (Failed, subprocess.TimeoutExpired, OSError) as error:
        sys.stderr.write(f"make demo failed: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    say(next_lines())
    return 0


if __name__ == "__main__":
    sys.exit(main())
