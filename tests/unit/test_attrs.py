"""Attributes in metadata: what we write is read back, and what s3fs and rclone write is understood."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.fs.attrs import AttrChange, Attributes, Defaults, changed, decode, encode, read_time, without_set_id, write_time
from s3mount.store.api import COMMIT_ID

DEFAULTS = Defaults(file_mode=0o640, dir_mode=0o750, uid=11, gid=12)
times = st.integers(-(10**19), 10**19)
kinds = st.sampled_from([stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR])
numbers = st.integers(0, 2**32 - 1)
attributes = st.builds(
    Attributes,
    mode=st.builds(lambda kind, mode: kind | mode, kinds, st.integers(0, 0o7777)),
    uid=numbers,
    gid=numbers,
    atime_ns=times,
    mtime_ns=times,
    ctime_ns=times,
    rdev=numbers,
    xattrs=st.dictionaries(st.binary(min_size=1, max_size=20), st.binary(max_size=50), max_size=4),
)


def read(metadata: dict[str, str], *, directory: bool = False, mtime_ns: int = 5) -> Attributes:
    return decode(metadata, directory=directory, mtime_ns=mtime_ns, defaults=DEFAULTS)


@given(attributes)
def test_what_is_written_is_read_back(written: Attributes) -> None:
    assert read(encode(written, {}), directory=written.type == stat.S_IFDIR) == written


@given(times)
def test_times_are_exact(time_ns: int) -> None:
    assert read_time(write_time(time_ns)) == time_ns


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1700000000", 1_700_000_000_000_000_000),
        ("1700000000.5", 1_700_000_000_500_000_000),
        ("1700000000.1234567891", 1_700_000_000_123_456_789),
        ("-0.5", -500_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
        ("2023-11-14T22:13:20.123456789Z", 1_700_000_000_123_456_789),
        ("2023-11-14T23:13:20.5+01:00", 1_700_000_000_500_000_000),
        ("yesterday", None),
        ("", None),
        ("1.2.3", None),
    ],
)
def test_times_of_other_tools_are_read(text: str, time_ns: int | None) -> None:
    assert read_time(text) == time_ns
    assert read({"mtime": text}).mtime_ns == (5 if time_ns is None else time_ns)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("33188", 0o100644),
        ("100644", 0o100644),
        ("120777", 0o120777),
        ("420", 0o100644),
        ("16877", 0o100755),
        ("-1", 0o100640),
        ("0x1ff", 0o100640),
        ("99999999999", 0o100640),
    ],
)
def test_modes_of_other_tools_are_read(text: str, mode: int) -> None:
    assert read({"mode": text}).mode == mode


def test_a_directory_is_one_whatever_its_marker_says() -> None:
    assert read({"mode": "33188"}, directory=True).mode == 0o040644
    assert read({"mode": "16877"}, directory=True).mode == 0o040755
    assert read({}, directory=True).mode == 0o040750


def test_an_object_without_attributes_has_the_defaults_and_its_own_time() -> None:
    found = read({"colour": "blue"})
    assert found == Attributes(0o100640, 11, 12, 5, 5, 5)


def test_damaged_values_count_as_missing() -> None:
    assert read({"uid": "root", "gid": "-3", "xattr": "%7Bnonsense", "rdev": "x"}) == read({})
    assert read({"xattr": "%5B1%5D"}).xattrs == {}
    assert read({"xattr": "%7B%22a%22%3A5%7D"}).xattrs == {}


def test_extended_attributes_of_s3fs_are_read() -> None:
    assert read({"xattr": "%7B%22user.foo%22%3A%22YmFy%22%7D"}).xattrs == {b"user.foo": b"bar"}


def test_foreign_metadata_is_kept_and_the_commit_id_is_not() -> None:
    written = encode(read({}), {"colour": "blue", COMMIT_ID: "x", "mode": "1", "atime": "3", "xattr": "y"})
    assert written == {"colour": "blue", "mode": "33184", "uid": "11", "gid": "12", "mtime": "0.000000005", "ctime": "0.000000005"}


def test_set_id_bits_go_when_somebody_writes() -> None:
    assert without_set_id(0o106755) == 0o100755
    assert without_set_id(0o102745) == 0o102745
    assert without_set_id(0o046755) == 0o046755


def test_changes_follow_the_rules_of_posix() -> None:
    before = Attributes(0o106755, 1, 2, 10, 20, 30)

    def after(change: AttrChange, *, privileged: bool = False) -> Attributes:
        return changed(before, change, now_ns=99, privileged=privileged)

    assert after(AttrChange(mode=0o040600)).mode == 0o100600
    assert after(AttrChange(uid=7)) == Attributes(0o100755, 7, 2, 10, 20, 99)
    assert after(AttrChange(size=0)) == Attributes(0o100755, 1, 2, 10, 99, 99)
    assert after(AttrChange(size=0), privileged=True).mode == 0o106755
    assert after(AttrChange(mtime_ns=3, ctime_ns=4)) == Attributes(0o106755, 1, 2, 10, 3, 4)
