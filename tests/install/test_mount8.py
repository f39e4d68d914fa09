"""The installed helpers under the real mount(8) and umount(8): options, /etc/fstab lines, waiting for the commit.

Owns: what an administrator types.
Must not know: how the helpers do it.

mount(8) looks for its helpers in /sbin alone. So as not to touch this machine's, each script runs in a mount namespace of its own in which
/sbin shows the installed helpers as well; nothing of it is left when the script and the mounts in it have ended.
The namespace begins with a copy of every mount of the machine. Those of FUSE are taken off it at once: a copy would keep the file system of
another test alive after that has unmounted it, and what waits for its process would wait for this script.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.install.conftest import INSTALL_SECONDS, Installation
from tests.leftovers import forget_mounts

pytestmark = [pytest.mark.slow, pytest.mark.fuse, pytest.mark.timeout(INSTALL_SECONDS + 120)]

WITHOUT_COPIES = """
awk '$3 == "fuse" || $3 ~ /^fuse[.]/ { print $2 }' /proc/self/mounts | while read -r copy; do umount -i -l "$(printf %b "$copy")" || :; done
"""
SHOW_HELPERS = 'mount -t overlay -o "lowerdir=$HELPERS:$(readlink -f /sbin)" overlay "$(readlink -f /sbin)"\n'


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder that everybody may enter, with a bucket's data folder and a mount point in it."""

    folder: Path
    installation: Installation

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def mount(self) -> Path:
        return self.folder / "mount"

    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.installation.prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "XDG_RUNTIME_DIR": str(self.folder),
            "HELPERS": str(self.installation.helpers),
            "DATA": str(self.data),
            "MNT": str(self.mount),
            "FSTAB": str(self.folder / "fstab"),
        }

    def sh(self, script: str, *, shell: tuple[str, ...] = ("sh", "-eu", "-c")) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*shell, script], cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=100, check=False
        )

    def as_administrator(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run *script* where mount(8) finds the helpers."""
        return self.sh(WITHOUT_COPIES + SHOW_HELPERS + script, shell=("unshare", "--mount", "--propagation", "private", "sh", "-eu", "-c"))


@pytest.fixture
def bench(installation: Installation) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="s3mount-mount8-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        made = Bench(folder, installation)
        made.mount.mkdir()
        assert made.sh('s3mount mb --data "$DATA" local://photos').returncode == 0
        yield made
        subprocess.run(["fusermount3", "-u", "-z", "-q", str(made.mount)], check=False)
        forget_mounts(folder)


@pytest.fixture
def administrator(bench: Bench) -> Bench:
    if os.geteuid() != 0:
        pytest.skip("mount(8) is for root; as an ordinary user the helpers are tried directly")
    if shutil.which("unshare") is None or bench.as_administrator("true").returncode != 0:
        pytest.skip("no mount namespace with an overlay can be made here, so the helpers cannot be shown to mount(8)")
    return bench


def processes_of(mount: Path) -> list[str]:
    """The command lines that name *mount*: its process, as long as that lives."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in lines if str(mount) in line]


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_mount_with_ro_and_allow_other_lets_everybody_read_and_nobody_write(administrator: Bench) -> None:
    script = """
        echo hello >greeting; chmod 644 greeting; s3mount cp --data "$DATA" greeting local://photos/greeting
        mount -t s3mount local://photos "$MNT" -o "ro,allow_other,data=$DATA,file-mode=644,dir-mode=755"
        grep " $MNT " /proc/mounts
        setpriv --reuid 65534 --regid 65534 --clear-groups cat "$MNT/greeting"
        if echo no >"$MNT/other"; then echo written; else echo refused; fi
        umount "$MNT"
    """
    done = administrator.as_administrator(script)
    assert not processes_of(administrator.mount)
    mounted, *lines = succeeded(done).splitlines()
    assert mounted.split()[2] == "fuse.s3mount"
    assert {"ro", "allow_other"} <= set(mounted.split()[3].split(","))
    assert lines == ["hello", "refused"]
    assert "Read-only file system" in done.stderr


def test_a_line_in_fstab_is_mounted_by_mount_a_and_umount_waits_for_the_commit(administrator: Bench) -> None:
    line = f"local://photos {administrator.mount} s3mount data={administrator.data},_netdev,nofail,x-systemd.automount,uid=1234 0 0\n"
    (administrator.folder / "fstab").write_text(line)
    script = """
        mount -a -T "$FSTAB"
        head -c 100000000 /dev/urandom >"$MNT/large"
        stat -c %u "$MNT/large" >owner
        sha256sum <"$MNT/large" >sum
        umount "$MNT"
        s3mount cat --data "$DATA" local://photos/large | sha256sum | cmp - sum
        if grep " $MNT " /proc/mounts; then exit 1; fi
    """
    succeeded(administrator.as_administrator(script))
    assert not processes_of(administrator.mount)


def test_what_fstab_mounted_can_be_mounted_again(administrator: Bench) -> None:
    (administrator.folder / "fstab").write_text(f"local://photos {administrator.mount} s3mount data={administrator.data},nofail 0 0\n")
    script = """
        for round in 1 2 3; do mount -a -T "$FSTAB"; echo $round >>"$MNT/rounds"; umount "$MNT"; done
        mount -T "$FSTAB" "$MNT"; cat "$MNT/rounds"; umount "$MNT"
    """
    assert succeeded(administrator.as_administrator(script)).split() == ["1", "2", "3"]


KILL_IT = """
    for process in /proc/[0-9]*; do
        case $(tr '\\0' ' ' 2>&- <$process/cmdline || true) in *"mount.s3mount local://photos $MNT"*)
            kill -9 ${process#/proc/}
            while kill -0 ${process#/proc/} 2>&-; do sleep 0.05; done
        esac
    done
"""


def test_mount_heals_what_was_killed(administrator: Bench) -> None:
    (administrator.folder / "fstab").write_text(f"local://photos {administrator.mount} s3mount data={administrator.data},nofail 0 0\n")
    script = f"""
        mount -a -T "$FSTAB"; echo text >"$MNT/file"
        {KILL_IT}
        mount -T "$FSTAB" "$MNT"; cat "$MNT/file"; umount "$MNT"
        grep " $MNT " /proc/mounts || echo gone
    """
    assert succeeded(administrator.as_administrator(script)).split() == ["text", "gone"]


def test_mount_a_heals_what_was_killed_where_auto_unmount_takes_it_off(administrator: Bench) -> None:
    """mount(8) asks no helper about what its table calls mounted, dead or not."""
    options = f"data={administrator.data},nofail,auto_unmount"
    (administrator.folder / "fstab").write_text(f"local://photos {administrator.mount} s3mount {options} 0 0\n")
    script = f"""
        mount -a -T "$FSTAB"; echo text >"$MNT/file"
        {KILL_IT}
        while grep -q " $MNT " /proc/mounts; do sleep 0.05; done
        mount -a -T "$FSTAB"; cat "$MNT/file"; umount "$MNT"
        grep " $MNT " /proc/mounts || echo gone
    """
    assert succeeded(administrator.as_administrator(script)).split() == ["text", "gone"]


def test_a_missing_bucket_makes_mount_fail_with_one_sentence(administrator: Bench) -> None:
    done = administrator.as_administrator('mount -t s3mount local://videos "$MNT" -o "data=$DATA"')
    assert done.returncode != 0
    assert "videos" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_unknown_option_makes_mount_fail_and_is_named(administrator: Bench) -> None:
    done = administrator.as_administrator('mount -t s3mount local://photos "$MNT" -o "data=$DATA,frobnicate=3"')
    assert done.returncode != 0
    assert "frobnicate" in done.stderr


def test_the_helpers_work_by_themselves_for_an_ordinary_user_too(bench: Bench) -> None:
    script = """
        "$HELPERS/mount.s3mount" local://photos "$MNT" -o "rw,data=$DATA"
        echo text >"$MNT/file"
        "$HELPERS/umount.s3mount" "$MNT"
        s3mount cat --data "$DATA" local://photos/file
    """
    assert succeeded(bench.sh(script)) == "text\n"
