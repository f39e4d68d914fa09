"""What mount(8) and umount(8) say to us, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3mount.cli.main import load
from s3mount.cli.mount_helper import (
    MountCall,
    UmountCall,
    helper_status,
    mount_command_line,
    parse_mount,
    parse_umount,
    run_mount,
    run_umount,
    umount_command_line,
)
from s3mount.cli.mount_options import options_of
from s3mount.errors import UsageError

SOURCE, TARGET = "local://bucket", "/mnt/x"


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        ([SOURCE, TARGET], MountCall(SOURCE, TARGET)),
        ([SOURCE, TARGET, "-o", "rw,uid=5"], MountCall(SOURCE, TARGET, ("rw", "uid=5"))),
        ([SOURCE, TARGET, "-o", "ro", "-o", "nosuid"], MountCall(SOURCE, TARGET, ("ro", "nosuid"))),
        (["-o", "ro", SOURCE, TARGET], MountCall(SOURCE, TARGET, ("ro",))),
        ([SOURCE, TARGET, "-sfnv"], MountCall(SOURCE, TARGET, fake=True, sloppy=True, verbose=True)),
        ([SOURCE, TARGET, "-r"], MountCall(SOURCE, TARGET, ("ro",))),
        ([SOURCE, TARGET, "-n", "-t", "fuse.s3mount"], MountCall(SOURCE, TARGET)),
        ([SOURCE, "/mnt/with blank", "-o", 'data="/a,b"'], MountCall(SOURCE, "/mnt/with blank", ("data=/a,b",))),
    ],
)
def test_the_arguments_of_mount_8_are_understood(arguments: list[str], call: MountCall) -> None:
    assert parse_mount(arguments) == call


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "a source and a mount point"),
        ([SOURCE], "a source and a mount point"),
        ([SOURCE, TARGET, "more"], "a source and a mount point"),
        ([SOURCE, TARGET, "-x"], "Option -x not recognized"),
        ([SOURCE, TARGET, "-o"], "Option -o requires argument"),
        ([SOURCE, TARGET, "-N", "/proc/1/ns/mnt"], "nsenter"),
    ],
)
def test_a_wrong_call_of_mount_is_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_mount(arguments)


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        ([TARGET], UmountCall(TARGET)),
        ([TARGET, "-nv", "-t", "fuse.s3mount"], UmountCall(TARGET, verbose=True)),
        (["-l", TARGET], UmountCall(TARGET, lazy=True)),
        ([TARGET, "-f", "-r"], UmountCall(TARGET, force=True)),
    ],
)
def test_the_arguments_of_umount_8_are_understood(arguments: list[str], call: UmountCall) -> None:
    assert parse_umount(arguments) == call


@pytest.mark.parametrize("arguments", [[], ["a", "b"], [TARGET, "-q"], [TARGET, "-N", "/x"]])
def test_a_wrong_call_of_umount_is_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_umount(arguments)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (MountCall(SOURCE, TARGET), ["mount", "--", SOURCE, TARGET]),
        (MountCall(SOURCE, TARGET, ("ro", "a=1,2")), None),
        (MountCall(SOURCE, TARGET, ("ro", "data=/a,b")), ["mount", "-o", r"ro,data=/a\,b", "--", SOURCE, TARGET]),
        (MountCall(SOURCE, TARGET, ("ro", "shiny"), sloppy=True), ["mount", "-o", "ro", "--", SOURCE, TARGET]),
        (MountCall(SOURCE, TARGET, verbose=True), ["--log-level=info", "mount", "--", SOURCE, TARGET]),
    ],
)
def test_a_call_becomes_the_mount_command(call: MountCall, line: list[str] | None) -> None:
    if line is not None:
        assert mount_command_line(call) == line
    else:
        assert "a=1\\,2" in mount_command_line(call)[2], "without -s the command itself refuses it"


def test_a_call_becomes_the_umount_command() -> None:
    assert umount_command_line(UmountCall(TARGET)) == ["umount", "--", TARGET]


def test_every_option_of_the_mount_command_can_be_written_behind_minus_o() -> None:
    known = options_of(load("mount"))
    assert {
        "read-only",
        "allow-other",
        "uid",
        "gid",
        "umask",
        "file-mode",
        "dir-mode",
        "create",
        "data",
        "log-level",
        "log-file",
    } <= known.keys()


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (1, 32), (2, 1), (130, 32)])
def test_the_status_is_the_one_that_mount_8_knows(status: int, expected: int) -> None:
    assert helper_status(status) == expected


def test_a_fake_mount_checks_and_mounts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_mount([SOURCE, str(tmp_path), "-f", "-o", "ro,uid=5"]) == 0
    assert run_mount([SOURCE, str(tmp_path), "-f", "-o", "uid=x"]) == 2
    assert run_mount([SOURCE, str(tmp_path), "-f", "-o", "shiny"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert all(line.startswith("mount.s3mount: ") for line in told)
    assert "shiny" in told[1]


def test_a_wrong_call_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_mount([SOURCE]) == 2
    assert run_umount([]) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in told] == ["mount.s3mount", "umount.s3mount"]
