"""What we add to the first words between kernel and libfuse, and what then becomes of set-id bits."""

from __future__ import annotations

import os
import re
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from s3mount.fuse import mountpoint
from s3mount.fuse.handshake import CONGESTION_THRESHOLD, HANDLE_KILLPRIV_V2, MAX_BACKGROUND, amended, can_shake_hands
from tests.fuse.conftest import NewMount
from tests.fuse.mounting import s3mount

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as somebody else")

# fuse_out_header; major, minor, max_readahead, flags; max_background, congestion_threshold, max_write, and what follows
ANSWER = struct.Struct("=IiQ IIII HHI 36x")


def test_the_flag_is_taken_where_the_kernel_offers_it_and_the_rest_stays() -> None:
    answer = ANSWER.pack(80, 0, 7, 7, 38, 1 << 17, 0b1011, 12, 9, 1 << 20)
    said = ANSWER.unpack(amended(answer, offered=0xFFFFFFFF))
    assert said == (80, 0, 7, 7, 38, 1 << 17, 0b1011 | HANDLE_KILLPRIV_V2, MAX_BACKGROUND, CONGESTION_THRESHOLD, 1 << 20)
    assert ANSWER.unpack(amended(answer, offered=0b1111))[6] == 0b1011


def test_labels_are_left_to_libfuse() -> None:
    assert can_shake_hands({"ro", "max_read=65536", "fsname=context=x"})
    assert not can_shake_hands({"ro", "context=system_u:object_r:x_t:s0"})


def test_an_error_is_passed_on_as_it_is() -> None:
    refusal = struct.pack("=IiQ", 16, -71, 7)
    assert amended(refusal, offered=0xFFFFFFFF) == refusal


@pytest.mark.fuse
@only_root
def test_the_kernel_runs_more_in_the_background_than_it_does_by_itself(new_mount: NewMount) -> None:
    mounted = mountpoint.mounted_at(new_mount().path)
    assert mounted is not None
    queue = Path("/sys/fs/fuse/connections") / mounted.device.partition(":")[2]
    if not queue.exists():
        pytest.skip("fusectl is not mounted here")
    assert int((queue / "max_background").read_text()) == MAX_BACKGROUND


@pytest.mark.fuse
def test_bits_set_before_the_kernel_has_written_what_it_holds_stay(new_mount: NewMount) -> None:
    mount = new_mount()
    file = os.open(mount.path / "file", os.O_CREAT | os.O_RDWR, 0o600)
    os.write(file, b"x" * 10_000)
    os.fchmod(file, 0o6755)
    os.close(file)
    mount.again()
    assert stat.S_IMODE((mount.path / "file").stat().st_mode) == 0o6755


@pytest.mark.fuse
@only_root
def test_set_id_bits_survive_a_write_of_roots_and_no_other(new_mount: NewMount) -> None:
    mount = new_mount("--allow-other")
    (mount.path / "file").write_text("x")
    (mount.path / "file").chmod(0o6777)
    with open(mount.path / "file", "a") as file:
        file.write("roots")
    mount.again()
    assert stat.S_IMODE((mount.path / "file").stat().st_mode) == 0o6777
    _as_nobody(mount.path, "open('file', 'a').write('mine')")
    assert (mount.path / "file").read_text() == "xrootsmine"
    mount.again()
    assert stat.S_IMODE((mount.path / "file").stat().st_mode) == 0o777


@pytest.mark.fuse
@only_root
@pytest.mark.parametrize("cut", ["os.truncate('file', 1)", "open('file', 'w').close()"])
def test_set_id_bits_go_when_somebody_cuts_the_file(new_mount: NewMount, cut: str) -> None:
    mount = new_mount("--allow-other")
    (mount.path / "file").write_text("xyz")
    (mount.path / "file").chmod(0o6777)
    _as_nobody(mount.path, cut)
    mount.again()
    assert stat.S_IMODE((mount.path / "file").stat().st_mode) == 0o777


@pytest.mark.fuse
@pytest.mark.parametrize("option", ["max_read=nonsense", "context=nonsense"])
def test_a_refused_mount_says_why_and_leaves_nothing_behind(new_mount: NewMount, tmp_path: Path, option: str) -> None:
    (tmp_path / "there").mkdir()
    done = s3mount("mount", "--create", "--data", tmp_path / "data", "local://bucket", tmp_path / "there", "-o", option)
    assert done.returncode != 0
    assert re.fullmatch(r"s3mount: .+\n", done.stderr), done.stderr
    assert mountpoint.mounted_at(tmp_path / "there") is None


def _as_nobody(folder: Path, script: str) -> None:
    for above in folder.parents:
        if above.stat().st_mode & 0o001 == 0:
            above.chmod(above.stat().st_mode | 0o001)
    program = f"import os; os.setgid(65534); os.setuid(65534); os.chdir({str(folder)!r}); {script}"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


@pytest.mark.fuse
@pytest.mark.parametrize("name", ["security.selinux", "security.capability", "system.posix_acl_access", "system.nfs4_acl"])
def test_labels_and_lists_are_not_supported_so_that_ls_asks_once(new_mount: NewMount, name: str) -> None:
    mount = new_mount()
    (mount.path / "file").touch()
    with pytest.raises(OSError, match="not supported"):
        os.getxattr(mount.path / "file", name)
