"""mb, rb, ls, cp, mv, rm, cat, stat, du on the embedded store."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from s3mount.model import Key, MiB
from s3mount.store.local import LocalStore
from tests.cli.conftest import KEYS, Command


def some_bytes(length: int) -> bytes:
    return random.Random(length).randbytes(length)


def keys(s3mount: Command, url: str) -> list[str]:
    return [record["key"] for record in s3mount("ls", "-r", "--json", url).records]


# -- buckets ------------------------------------------------------------------------------


def test_a_new_bucket_is_listed(s3mount: Command) -> None:
    assert s3mount("ls").lines == []
    assert s3mount("mb", "local://one-bucket", "local://another").status == 0
    assert s3mount("ls").lines == ["another", "one-bucket"]
    assert [record["bucket"] for record in s3mount("ls", "--json", "local://").records] == ["another", "one-bucket"]
    assert len(s3mount("ls", "-l").lines) == 2


def test_looking_makes_no_folder(s3mount: Command, data: Path) -> None:
    assert s3mount("ls").status == 0
    assert s3mount("ls", "local://bucket").status == 1
    assert s3mount("rb", "local://bucket").status == 1
    assert not data.exists()


def test_an_empty_bucket_can_be_removed(s3mount: Command, bucket: str) -> None:
    assert s3mount("rb", bucket).status == 0
    assert s3mount("ls").lines == []


def test_a_bucket_with_objects_is_removed_by_force_only(s3mount: Command, filled: str) -> None:
    refused = s3mount("rb", filled)
    assert refused.status == 1
    assert "s3mount rb --force local://bucket" in refused.err
    removed = s3mount("rb", "--force", "--json", filled)
    assert removed.records == [{"kind": "bucket", "bucket": "bucket", "removed": True, "objects": 6}]
    assert s3mount("ls").lines == []


# -- looking ------------------------------------------------------------------------------


def test_ls_shows_one_level(s3mount: Command, filled: str) -> None:
    assert s3mount("ls", filled).lines == ["a", "a-", "a/", "empty/", "z"]
    assert s3mount("ls", f"{filled}/a/").lines == ["b", "c/"]
    assert s3mount("ls", f"{filled}/z").lines == ["z"]
    assert s3mount("ls", f"{filled}/a").lines == ["a", "b", "c/"], "the object of that name, and what lies below it"


def test_ls_shows_every_key_when_asked(s3mount: Command, filled: str) -> None:
    assert s3mount("ls", "-r", filled).lines == ["a", "a-", "a/b", "a/c/d", "empty/.", "z"]
    assert s3mount("ls", "-r", f"{filled}/a/").lines == ["b", "c/d"]


def test_ls_shows_sizes_and_times(s3mount: Command, filled: str) -> None:
    lines = s3mount("ls", "-l", filled).lines
    assert lines[0].split()[0] == "1"
    assert lines[0].split()[-1] == "a"
    assert lines[2].split() == ["-", "a/"]


def test_ls_for_programs_is_one_record_per_line(s3mount: Command, filled: str) -> None:
    records = s3mount("ls", "--json", filled).records
    assert [(record["kind"], record["url"]) for record in records] == [
        ("object", "local://bucket/a"),
        ("object", "local://bucket/a-"),
        ("prefix", "local://bucket/a/"),
        ("prefix", "local://bucket/empty/"),
        ("object", "local://bucket/z"),
    ]
    assert records[0]["size"] == 1


@pytest.mark.slow
def test_a_listing_of_more_than_a_page_is_whole(s3mount: Command, bucket: str, here: Path) -> None:
    (here / "tree").mkdir()
    for number in range(1203):
        (here / "tree" / f"{number:04}").touch()
    assert s3mount("cp", "-r", "tree", bucket).status == 0
    assert s3mount("ls", f"{bucket}/tree").lines == [f"{number:04}" for number in range(1203)]
    assert s3mount("du", "--json", bucket).records == [{"kind": "sum", "url": bucket, "size": 0, "objects": 1203}]
    assert s3mount("rm", "-r", f"{bucket}/tree").status == 0
    assert s3mount("ls", "-r", bucket).lines == []


def test_stat_shows_an_object_and_a_prefix(s3mount: Command, filled: str) -> None:
    (record,) = s3mount("stat", "--json", f"{filled}/a/b").records
    assert (record["kind"], record["key"], record["size"]) == ("object", "a/b", 3)
    (record,) = s3mount("stat", "--json", f"{filled}/a/").records
    assert (record["kind"], record["prefix"], record["marker"]) == ("prefix", "a/", False)
    (record,) = s3mount("stat", "--json", filled).records
    assert record["kind"] == "bucket"
    assert "size: 3" in s3mount("stat", f"{filled}/a/b").text


def test_du_adds_up(s3mount: Command, filled: str) -> None:
    assert s3mount("du", filled, f"{filled}/a/", f"{filled}/z").lines == [
        f"{sum(map(len, KEYS))}\t6\t{filled}",
        f"8\t2\t{filled}/a/",
        f"1\t1\t{filled}/z",
    ]
    assert s3mount("du", "-H", f"{filled}/a/").text.startswith("8\t2")


# -- copying ------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 10, 3 * MiB + 1])
def test_a_file_goes_in_and_comes_out(s3mount: Command, bucket: str, here: Path, length: int) -> None:
    (here / "in.txt").write_bytes(some_bytes(length))
    assert s3mount("cp", "in.txt", f"{bucket}/key").status == 0
    assert s3mount("cp", f"{bucket}/key", "out").status == 0
    assert (here / "out").read_bytes() == some_bytes(length)
    assert s3mount("cat", f"{bucket}/key").out == some_bytes(length)
    assert s3mount("cp", f"{bucket}/key", "-").out == some_bytes(length)


def test_a_pipe_goes_in(s3mount: Command, bucket: str) -> None:
    assert s3mount("cp", "-", f"{bucket}/key", stdin=some_bytes(3 * MiB)).status == 0
    assert s3mount("cat", f"{bucket}/key").out == some_bytes(3 * MiB)


@pytest.mark.parametrize(
    ("target", "key"), [("local://bucket", "f"), ("local://bucket/d/", "d/f"), ("local://bucket/a", "a/f"), ("local://bucket/new", "new")]
)
def test_a_directory_takes_the_copy_in_under_its_name(s3mount: Command, filled: str, here: Path, target: str, key: str) -> None:
    (here / "f").write_text("f")
    (record,) = s3mount("cp", "--json", "f", target).records
    assert record == {"source": "f", "target": f"local://bucket/{key}", "size": 1, "moved": False}
    assert key in keys(s3mount, filled)


def test_the_type_comes_from_the_name_or_as_asked(s3mount: Command, bucket: str, here: Path) -> None:
    (here / "page.html").write_text("x")
    s3mount("cp", "page.html", f"{bucket}/one")
    s3mount("cp", "--content-type", "text/x-own", "page.html", f"{bucket}/two")
    s3mount("cp", "--content-type", "text/x-other", f"{bucket}/one", f"{bucket}/three")
    s3mount("cp", f"{bucket}/two", f"{bucket}/four")
    records = s3mount("stat", "--json", *(f"{bucket}/{name}" for name in ("one", "two", "three", "four"))).records
    assert [record["content_type"] for record in records] == ["text/html", "text/x-own", "text/x-other", "text/x-own"]


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def make_tree(folder: Path) -> dict[str, bytes | None]:
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "void").mkdir()
    (folder / "one").write_bytes(b"1")
    (folder / "sub" / "two").write_bytes(some_bytes(2 * MiB))
    (folder / "sub" / "deep" / "naïve name␛").write_bytes(b"3")
    return tree(folder)


def test_a_tree_goes_in_and_comes_out(s3mount: Command, bucket: str, here: Path) -> None:
    original = make_tree(here / "tree")
    assert s3mount("cp", "-r", "tree", bucket).status == 0
    assert "tree/void/" in keys(s3mount, bucket)
    assert s3mount("cp", "-r", f"{bucket}/tree", "out").status == 0
    assert tree(here / "out") == original
    assert s3mount("cp", "-r", f"{bucket}/tree", "out").status == 0, "out is a directory now"
    assert tree(here / "out" / "tree") == original


def test_a_tree_is_copied_within_a_bucket_and_to_another(s3mount: Command, bucket: str, here: Path) -> None:
    original = make_tree(here / "tree")
    s3mount("mb", "local://other")
    s3mount("cp", "-r", "tree", f"{bucket}/a")
    assert s3mount("cp", "-r", f"{bucket}/a", f"{bucket}/b").status == 0
    assert s3mount("cp", "-r", f"{bucket}/b", "local://other").status == 0
    s3mount("cp", "-r", "local://other/b", "out")
    assert tree(here / "out") == original


def test_keys_that_are_no_paths_come_out_under_the_names_a_mount_shows(s3mount: Command, bucket: str, here: Path) -> None:
    odd = ["../up", "/abs", "a", "a/b", "a//c", "dir/"]
    for key in odd:
        s3mount("cp", "-", f"{bucket}/x{key}", stdin=b"x")
        s3mount("cp", "-", f"{bucket}/in/{key}" if not key.endswith("/") else f"{bucket}/in/{key}.", stdin=b"x")
    assert s3mount("cp", "-r", f"{bucket}/in", "out").status == 0
    assert sorted(tree(here / "out")) == ["a", "a/b", "a/␛_", "a/␛_/c", "a␛f", "dir", "dir/␛.", "␛..", "␛../up", "␛_", "␛_/abs"]
    s3mount("mb", "local://other")
    assert s3mount("cp", "-r", "out/.", "local://other").status == 0
    assert keys(s3mount, "local://other") == [key.removeprefix("in/") for key in keys(s3mount, f"{bucket}/in/")]


def test_an_object_and_what_lies_below_it_are_copied_together(s3mount: Command, filled: str, here: Path) -> None:
    assert s3mount("cp", "-r", f"{filled}/a", "out").status == 0
    assert sorted(tree(here)) == ["out", "out/b", "out/c", "out/c/d", "out␛f"]
    assert s3mount("cp", "-r", f"{filled}/a", f"{filled}/new/").status == 0
    assert keys(s3mount, f"{filled}/new/") == ["new/a", "new/a/b", "new/a/c/d"]


def test_a_symbolic_link_is_followed_to_its_file(s3mount: Command, bucket: str, here: Path) -> None:
    (here / "tree").mkdir()
    (here / "target").write_bytes(b"x")
    (here / "tree" / "link").symlink_to("../target")
    assert s3mount("cp", "-r", "tree", bucket).status == 0
    assert s3mount("cat", f"{bucket}/tree/link").out == b"x"


def test_what_is_no_file_is_passed_over_with_a_warning(s3mount: Command, bucket: str, here: Path, expect_logs: Command) -> None:
    (here / "tree").mkdir()
    (here / "tree" / "gone").symlink_to("nowhere")
    (here / "tree" / "loop").symlink_to(".")
    (here / "tree" / "file").touch()
    expect_logs("tree/gone is neither a file nor a directory")
    expect_logs("tree/loop is a link to a directory")
    outcome = s3mount("cp", "-r", "tree", bucket)
    assert outcome.status == 0
    assert outcome.err.splitlines() == [
        "s3mount: warning: tree/loop is a link to a directory: passed over.",
        "s3mount: warning: tree/gone is neither a file nor a directory: passed over.",
    ]
    assert keys(s3mount, bucket) == ["tree/file"]


def test_several_sources_go_into_a_directory(s3mount: Command, bucket: str, here: Path) -> None:
    (here / "one").touch()
    (here / "two").touch()
    assert s3mount("cp", "-v", "one", "two", bucket).status == 0
    assert keys(s3mount, bucket) == ["one", "two"]
    assert s3mount("cp", "one", "two", f"{bucket}/new").status == 2
    assert s3mount("cp", f"{bucket}/one", f"{bucket}/two", ".").status == 0


def test_standard_output_takes_one_object(s3mount: Command, filled: str) -> None:
    assert s3mount("cp", "-r", f"{filled}/a", "-").out == b"a"
    assert s3mount("cp", "-r", f"{filled}/a/", "-").status == 2


# -- moving -------------------------------------------------------------------------------


def test_an_object_is_renamed(s3mount: Command, filled: str) -> None:
    assert s3mount("mv", f"{filled}/z", f"{filled}/y").status == 0
    assert s3mount("mv", f"{filled}/y", f"{filled}/empty/").status == 0
    assert keys(s3mount, filled) == ["a", "a-", "a/b", "a/c/d", "empty/.", "empty/y"]
    assert s3mount("cat", f"{filled}/empty/y").out == b"z"


def test_a_prefix_is_renamed_with_all_below_it(s3mount: Command, filled: str) -> None:
    (record,) = s3mount("mv", "--json", f"{filled}/a/", f"{filled}/new").records
    assert record == {"source": f"{filled}/a/", "target": f"{filled}/new", "keys": 2, "moved": True}
    assert keys(s3mount, filled) == ["a", "a-", "empty/.", "new/b", "new/c/d", "z"]


def test_a_file_moves_in_and_out(s3mount: Command, bucket: str, here: Path) -> None:
    original = make_tree(here / "tree")
    assert s3mount("mv", "tree", bucket).status == 0
    assert not (here / "tree").exists()
    assert s3mount("mv", f"{bucket}/tree", "back").status == 0
    assert tree(here / "back") == original
    assert keys(s3mount, bucket) == []


def test_a_prefix_moves_to_another_bucket(s3mount: Command, filled: str) -> None:
    s3mount("mb", "local://other")
    assert s3mount("mv", f"{filled}/a/", "local://other").status == 0
    assert keys(s3mount, "local://other") == ["a/b", "a/c/d"]
    assert keys(s3mount, filled) == ["a", "a-", "empty/.", "z"]


def test_what_cannot_move_stays_and_is_said(s3mount: Command, bucket: str, here: Path, expect_logs: Command) -> None:
    expect_logs("passed over")
    (here / "tree").mkdir()
    (here / "tree" / "file").write_bytes(b"x")
    os.mkfifo(here / "tree" / "fifo")
    outcome = s3mount("mv", "tree", bucket)
    assert outcome.status == 1
    assert "tree: directory not empty" in outcome.err
    assert os.listdir(here / "tree") == ["fifo"]
    assert keys(s3mount, bucket) == ["tree/file"]


def test_a_source_goes_only_when_its_copy_survives_a_power_cut(
    s3mount: Command, bucket: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, unlink = LocalStore.sync, Path.unlink

    async def noted_sync(store: LocalStore, key: Key | None = None) -> None:
        steps.append(f"sync {key}")
        await sync(store, key)

    def noted_unlink(path: Path, missing_ok: bool = False) -> None:
        steps.append(f"unlink {path}")
        unlink(path, missing_ok)

    (here / "file").write_bytes(b"x")
    monkeypatch.setattr(LocalStore, "sync", noted_sync)
    monkeypatch.setattr(Path, "unlink", noted_unlink)
    assert s3mount("mv", "file", f"{bucket}/key").status == 0
    assert steps[:2] == ["sync key", "unlink file"]


# -- removing -----------------------------------------------------------------------------


def test_an_object_is_removed_and_a_prefix_only_when_asked(s3mount: Command, filled: str) -> None:
    assert s3mount("rm", f"{filled}/a").status == 0
    refused = s3mount("rm", f"{filled}/a")
    assert (refused.status, "-r" in refused.err) == (2, True)
    assert keys(s3mount, filled) == ["a-", "a/b", "a/c/d", "empty/.", "z"]
    assert s3mount("rm", "-r", f"{filled}/a").status == 0
    assert keys(s3mount, filled) == ["a-", "empty/.", "z"]
    assert s3mount("rm", "-r", "--json", filled).records[0]["objects"] == 3


def test_what_is_not_there_is_an_error_unless_forced(s3mount: Command, filled: str) -> None:
    assert s3mount("rm", f"{filled}/no").status == 1
    assert s3mount("rm", "-r", f"{filled}/no").status == 1
    assert s3mount("rm", "-f", f"{filled}/no").status == 0
    assert s3mount("rm", "-rf", f"{filled}/no").status == 0


# -- beside the work ----------------------------------------------------------------------


def test_a_bar_shows_on_a_terminal(s3mount: Command, bucket: str, here: Path) -> None:
    make_tree(here / "tree")
    outcome = s3mount("cp", "-r", "tree", bucket, terminal=True)
    assert outcome.status == 0
    assert "Copying" in outcome.err
    assert "100%" in outcome.err
    assert s3mount("cp", "-r", "-v", "tree", bucket, terminal=True).err == "", "lines and a bar would mix"
    assert "Removing" in s3mount("rm", "-r", bucket, terminal=True).err


@pytest.mark.slow
def test_an_interrupted_copy_leaves_nothing(s3mount: Command, bucket: str, data: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "s3mount", "cp", "-", f"{bucket}/key"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=data,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell ignores it in what runs in its background
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(bytes(3 * MiB))
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 1
        assert process.stderr.read() == b"s3mount: interrupted\n"
    assert s3mount("ls", bucket).lines == []
    assert list((data / "staging").glob("*/cp-*")) == []


# -- size ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_memory_does_not_grow_with_the_object(data: Path, here: Path) -> None:
    """Private memory is limited to less than the object has bytes: what the kernel maps and caches does not count, what we keep does."""
    script = (
        "import resource, sys; from s3mount.cli.main import main;"
        "resource.setrlimit(resource.RLIMIT_DATA, (400 << 20, 400 << 20)); main(sys.argv[1:])"
    )
    program = f"{sys.executable} -c '{script}'"
    steps = [
        f"{program} mb local://bucket",
        f"head -c 600M /dev/zero | tr '\\0' x | {program} cp - local://bucket/key",
        f"{program} cp local://bucket/key out",
        f"{program} cp out local://bucket/again",
        f"{program} cat local://bucket/again | cmp - out",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for step in steps:
        subprocess.run(["bash", "-o", "pipefail", "-c", step], env=environment, check=True, timeout=100)
    assert (here / "out").stat().st_size == 600 * MiB
