"""The language of -o: tables in, values out."""

from __future__ import annotations

import pytest

from s3mount.cli.mount_options import (
    DEFAULTS,
    IGNORED,
    KERNEL,
    Known,
    expand,
    join_options,
    refuse_unknown,
    split_options,
    translate,
)
from s3mount.errors import UsageError

KNOWN = {
    "read-only": Known("--read-only", takes_value=False),
    "allow-other": Known("--allow-other", takes_value=False),
    "uid": Known("--uid", takes_value=True),
    "file-mode": Known("--file-mode", takes_value=True),
    "sync": Known("--sync", takes_value=True),
    "data": Known("--data", takes_value=True),
}


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", []),
        ("ro", ["ro"]),
        ("ro,uid=5", ["ro", "uid=5"]),
        (",ro,,rw,", ["ro", "rw"]),
        ('data="/a,b",ro', ["data=/a,b", "ro"]),
        (r"data=/a\,b,ro", ["data=/a,b", "ro"]),
        (r"data=/a\\b", ["data=/a\\b"]),
        (r"data=\"x\"", ['data="x"']),
        ('context="system_u:object_r:tmp_t:s0:c1,c2"', ["context=system_u:object_r:tmp_t:s0:c1,c2"]),
    ],
)
def test_a_list_is_split_at_commas_that_are_not_quoted(text: str, options: list[str]) -> None:
    assert split_options(text) == options


@pytest.mark.parametrize("options", [["a=1,2", "b"], ["a\\", 'b"', 'c,"\\,'], ["x"]])
def test_joining_and_splitting_give_the_options_back(options: list[str]) -> None:
    assert split_options(join_options(options)) == options


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ("ro", ["--read-only"]),
        ("ro,rw", []),
        ("rw,ro", ["--read-only"]),
        ("read_only", ["--read-only"]),
        ("read-only=yes", ["--read-only"]),
        ("read_only=True,rw", []),
        ("allow_other", ["--allow-other"]),
        ("allow-other", ["--allow-other"]),
        ("allow_other,allow_other=no", []),
        ("uid=5", ["--uid=5"]),
        ("uid=5,uid=6", ["--uid=6"]),
        ("file_mode=0644", ["--file-mode=0644"]),
        ("file-mode=0644", ["--file-mode=0644"]),
        ("data=/srv/a=b", ["--data=/srv/a=b"]),
        ("sync=close", ["--sync=close"]),
        ("defaults,_netdev,nofail,x-systemd.automount,comment=mine,user=joe,noauto,X-own,relatime", []),
    ],
)
def test_every_option_of_the_command_has_its_name_here_too(options: str, arguments: list[str]) -> None:
    translated = translate(split_options(options), KNOWN)
    assert list(translated.arguments) == arguments
    assert not translated.kernel
    assert not translated.unknown


@pytest.mark.parametrize(
    ("options", "kernel"),
    [
        ("nosuid,nodev,noexec", ["nosuid", "nodev", "noexec"]),
        ("nosuid,suid", []),
        ("suid,nosuid", ["nosuid"]),
        ("noatime,atime", []),
        ("noatime,nodiratime,dirsync", ["noatime", "nodiratime", "dirsync"]),
        ("sync", ["sync"]),
        ("sync,async", []),
        ("context=a:b:c", ["context=a:b:c"]),
        ("max_read=131072", ["max_read=131072"]),
    ],
)
def test_what_is_for_the_kernel_is_handed_on(options: str, kernel: list[str]) -> None:
    translated = translate(split_options(options), KNOWN)
    assert list(translated.kernel) == kernel
    assert not translated.arguments
    assert not translated.unknown


def test_what_nobody_claims_is_named() -> None:
    translated = translate(["ro", "colour=red", "shiny", "uid=1"], KNOWN)
    assert translated.unknown == ("colour=red", "shiny")
    with pytest.raises(UsageError, match=r"^Unknown mount options: colour, shiny\.$"):
        refuse_unknown(translated.unknown)


def test_remount_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(UsageError, match="unmount it and mount it again"):
        refuse_unknown(translate(["remount", "ro"], KNOWN).unknown)


@pytest.mark.parametrize(("option", "words"), [("uid", "-o uid=VALUE"), ("allow_other=perhaps", "yes or no"), ("data", "needs a value")])
def test_a_value_that_makes_no_sense_is_refused(option: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        translate([option], KNOWN)


def test_no_word_has_two_meanings() -> None:
    assert not KERNEL & IGNORED
    assert not KERNEL & DEFAULTS.keys()
    assert not IGNORED & DEFAULTS.keys()
    assert set(DEFAULTS.values()) <= KERNEL


@pytest.mark.parametrize(
    ("arguments", "expanded"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "b", "-o", "ro,uid=5,nosuid"], ["a", "b", "--read-only", "--uid=5", "-o", "nosuid"]),
        (["-oro", "a"], ["--read-only", "a"]),
        (["-o", "ro", "--", "-o", "ro"], ["--read-only", "--", "-o", "ro"]),
        (["a", "-o"], ["a", "-o"]),
        (["--uid", "1", "-o", "uid=2"], ["--uid", "1", "--uid=2"]),
        (["-o", "defaults"], []),
    ],
)
def test_a_list_of_options_expands_in_its_place(arguments: list[str], expanded: list[str]) -> None:
    assert expand(arguments, KNOWN) == expanded


def test_expanding_refuses_what_nobody_claims() -> None:
    with pytest.raises(UsageError, match="colour"):
        expand(["a", "-o", "ro,colour=red"], KNOWN)
