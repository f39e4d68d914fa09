"""`s3mount pending`, `retry`, `discard` and `export` without any mount: on journals, as mounts leave them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from s3mount.cli.open_store import Stores
from s3mount.cli.pending_items import Item, RunningMount, everything
from s3mount.cli.pending_keeper import Keeper, left_behind
from s3mount.cli.pending_places import PendingPlace, all_places, describe, place_of, reached_as
from s3mount.cli.pending_send import in_its_words
from s3mount.cli.store_options import Choice
from s3mount.config import parse_url
from s3mount.errors import AccessDenied, Stale, Unavailable
from s3mount.fs.kept import Uncommitted
from s3mount.model import Absent, Condition, Content, ETag, Hole, Kept, Key, Matches, MiB, ObjectInfo, Piece, Staged
from s3mount.store.api import COMMIT_ID, Commit
from s3mount.store.s3.options import S3Options
from s3mount.writeback.journal import Enter, Journal
from s3mount.writeback.records import LOCAL, Op, Record
from tests.cli.conftest import Command

URL = "local://bucket"
ID = "0" * 32


class Bytes:
    """Staged bytes in memory."""

    path = None

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.length = len(data)

    def read_into(self, position: int, buffer: memoryview) -> None:
        buffer[:] = self.data[position : position + len(buffer)]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's state, and no mounts."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("s3mount.cli.pending_items.running_mounts", list)
    return tmp_path / "state" / "s3mount"


@pytest.fixture
def place(bucket: str, data: Path) -> PendingPlace:
    return place_of(parse_url(bucket), Choice(data))


def keep(
    place: PendingPlace,
    key: str = "a/file",
    data: bytes = b"precious",
    *,
    pieces: tuple[Piece, ...] = (),
    base: ObjectInfo | None = None,
    condition: Condition = None,
    commit_id: str = ID,
    error: Exception | None = None,
    incomplete: bool = False,
) -> None:
    """As a mount does that could not store *data*."""
    pieces = pieces or ((Staged(0, len(data), Bytes(data), 0),) if data else ())
    content = Content(sum(piece.length for piece in pieces), pieces, base)
    metadata = {"mode": str(0o100640), "mtime": "1000000000.000000007"}
    commit = Commit(condition=condition, metadata=metadata, content_type="text/plain", commit_id=commit_id)
    reason: Any = error or AccessDenied("Not with these rights.")
    Keeper(place).keep(Uncommitted(key=Key(key), content=content, commit=commit, error=reason, incomplete=incomplete))


def put(data: Path, key: str, body: bytes, **commit: object) -> ObjectInfo:
    """Another client commits."""

    async def act() -> ObjectInfo:
        async with Stores(Choice(data)) as stores:
            return await (await stores.open(parse_url(URL))).put(Key(key), body, Commit(**commit))  # type: ignore[arg-type]

    return trio.run(act)


def ids() -> list[str]:
    return [item.id for item in everything()]


# -- pending --------------------------------------------------------------------------------


def test_nothing_pending_is_no_line_and_no_error(s3mount: Command) -> None:
    done = s3mount("pending")
    assert (done.status, done.lines, done.err) == (0, [], "")


def test_what_is_pending_is_listed_with_size_age_and_reason_whether_its_bucket_is_mounted_or_not(
    s3mount: Command, place: PendingPlace, tmp_path: Path
) -> None:
    keep(place)
    other = place_of(parse_url("s3://other/prefix"), Choice(None, S3Options(endpoint="http://nowhere.invalid")))
    keep(other, key="prefix/β", data=b"x" * 3000)
    first, second = s3mount("pending", "--json").records
    assert (first["url"], first["key"], first["size"], first["state"]) == ("local://bucket/a/file", "a/file", 8, "kept")
    assert (first["reason"], first["mountpoint"], first["removal"]) == ("Not with these rights.", None, False)
    assert (second["url"], second["size"]) == ("s3://other/prefix/β", 3000)
    text = s3mount("pending", "--human").text
    assert "2.9K" in text
    assert "Not with these rights." in text
    assert [record["url"] for record in s3mount("pending", "--json", "s3://other").records] == ["s3://other/prefix/β"]
    assert s3mount("pending", "local://bucket/a").lines != []
    assert s3mount("pending", "local://bucket/a/fil").lines == []
    assert "neither a URL nor in an s3mount" in s3mount("pending", tmp_path).err


def test_what_a_mount_with_write_back_left_is_counted_unless_another_sends_it(place: PendingPlace) -> None:
    assert left_behind(place) == 0
    with Journal.open(place.write_back) as journal:
        journal.apply([Enter(Record(key=Key("a"), op=Op.PUT, commit_id=ID)), Enter(Record(key=Key("b"), op=Op.DELETE))])
        assert left_behind(place) == 0
    assert left_behind(place) == 2


def test_a_folder_that_makes_no_sense_is_passed_over(s3mount: Command, place: PendingPlace, state: Path) -> None:
    keep(place)
    for name, text in {"torn": "{", "list": "[]", "newer": '{"format": 9}'}.items():
        (state / "pending" / name).mkdir()
        (state / "pending" / name / "bucket.json").write_text(text)
    (place.write_back).mkdir()
    (place.write_back / "journal.sqlite").write_bytes(b"no journal" * 100)
    assert [item.url.key for item in everything()] == ["a/file"]


# -- retry ----------------------------------------------------------------------------------


def test_retry_stores_it_with_everything_that_it_was_to_have(s3mount: Command, place: PendingPlace) -> None:
    keep(place, condition=Absent())
    done = s3mount("retry", "local://bucket/a/file")
    assert (done.status, done.text) == (0, "local://bucket/a/file: stored\n")
    (record,) = s3mount("stat", "--json", "local://bucket/a/file").records
    assert (record["size"], record["content_type"], record["metadata"]["mtime"]) == (8, "text/plain", "1000000000.000000007")
    assert record["metadata"][COMMIT_ID] == ID
    assert s3mount("cat", "local://bucket/a/file").out == b"precious"
    assert everything() == []
    with Journal.visit(place.kept) as journal:
        journal.check()


def test_what_arrived_after_all_is_not_sent_again(s3mount: Command, place: PendingPlace, data: Path) -> None:
    """Its reply was lost, and somebody has read it since."""
    info = put(data, "a/file", b"precious", commit_id=ID, metadata={})
    keep(place, condition=Absent())
    assert s3mount("retry", "--all").status == 0
    (record,) = s3mount("stat", "--json", "local://bucket/a/file").records
    assert record["file_id"] == info.file_id
    assert record["metadata"].get("mtime") is None
    assert everything() == []


@pytest.mark.parametrize("condition", [Absent(), Matches(ETag("former"))])
def test_retry_undoes_nobodys_work_unless_it_is_told_to(s3mount: Command, place: PendingPlace, data: Path, condition: Condition) -> None:
    put(data, "a/file", b"theirs")
    keep(place, condition=condition)
    done = s3mount("retry", ids()[0])
    assert done.status == 1
    assert "changed by somebody else" in done.err
    assert "--overwrite" in done.err
    assert s3mount("cat", "local://bucket/a/file").out == b"theirs"
    (item,) = everything()
    assert (item.tries, "changed by somebody else" in item.reason) == (1, True)
    assert s3mount("retry", "--overwrite", ids()[0]).status == 0
    assert s3mount("cat", "local://bucket/a/file").out == b"precious"
    assert everything() == []


def edit_of(base: ObjectInfo) -> dict[str, object]:
    """Five new bytes in the middle of *base*, and a hole behind it."""
    new = Staged(100, 5, Bytes(b"hello"), 0)
    pieces = (Kept(0, 100), new, Kept(105, base.size - 105), Hole(base.size, 10))
    return {"pieces": pieces, "base": base, "condition": Matches(base.etag)}


def edited(body: bytes) -> bytes:
    return body[:100] + b"hello" + body[105:] + bytes(10)


def test_an_edit_is_put_together_from_its_base_and_what_was_kept(s3mount: Command, place: PendingPlace, data: Path, tmp_path: Path) -> None:
    body = os.urandom(2 * MiB)
    base = put(data, "a/file", body)
    keep(place, **edit_of(base))  # type: ignore[arg-type]
    assert sum(path.stat().st_size for path in (place.kept / "bodies").iterdir()) < MiB
    assert s3mount("export", "--all", tmp_path / "out").status == 0
    assert (tmp_path / "out").read_bytes() == edited(body)
    assert s3mount("retry", "--all").status == 0
    assert s3mount("cat", "local://bucket/a/file").out == edited(body)


def test_a_file_whose_bytes_lie_under_another_name_is_read_from_there(place: PendingPlace, data: Path) -> None:
    """Regression: a version that --write-back called its own way was looked for under the name of the file that is made of it."""
    other = "1" * 32
    there = put(data, "before", b"bytes", commit_id=other)
    record = Record(
        key=Key("after"), op=Op.PUT, condition=Absent(), pieces=(Kept(0, 5),), base=replace(there, etag=ETag(LOCAL + other)), size=5
    )

    async def act() -> Record:
        async with Stores(Choice(data)) as stores:
            return await in_its_words(await stores.open(parse_url(URL)), record)

    told = trio.run(act)
    assert told.base is not None
    assert (told.base.key, told.base.etag, told.base.size, told.condition) == ("before", there.etag, 5, Absent())


def test_an_edit_of_a_version_that_is_gone_says_so(s3mount: Command, place: PendingPlace, data: Path, tmp_path: Path) -> None:
    base = put(data, "a/file", os.urandom(1000))
    put(data, "a/file", b"theirs")
    keep(place, **edit_of(base), error=Stale("It was replaced."))  # type: ignore[arg-type]
    for words in (["retry", "--all"], ["retry", "--all", "--overwrite"]):
        done = s3mount(*words)
        assert (done.status, "export it" in done.err) == (1, True)
    done = s3mount("export", "--all", tmp_path / "out")
    assert (done.status, "995 of its 1010 bytes were those of a version that is gone" in done.err) == (1, True)
    assert list(tmp_path.glob("*out*")) == []
    assert s3mount("export", "--all", "--partial", tmp_path / "out").status == 0
    assert (tmp_path / "out").read_bytes() == edited(bytes(1000))


def test_one_failure_does_not_keep_the_others_from_being_stored(s3mount: Command, place: PendingPlace, data: Path) -> None:
    put(data, "b", b"theirs")
    for key in ("a", "b", "c"):
        keep(place, key=key, condition=Absent(), commit_id=key * 32)
    done = s3mount("retry", "--all", "--json")
    assert done.status == 1
    assert [(record["key"], record["done"]) for record in done.records] == [("a", "stored"), ("b", None), ("c", "stored")]
    assert "changed" in done.records[1]["error"]
    assert [item.url.key for item in everything()] == ["b"]


def test_a_bucket_that_is_gone_keeps_what_waits_for_it(s3mount: Command, place: PendingPlace) -> None:
    keep(place)
    s3mount("rb", "local://bucket")
    done = s3mount("retry", "--all")
    assert (done.status, "s3mount mb local://bucket" in done.err) == (1, True)
    assert len(everything()) == 1
    s3mount("mb", "local://bucket")
    assert s3mount("retry", "--all").status == 0


def test_what_lacks_bytes_that_were_written_is_exported_and_never_stored(s3mount: Command, place: PendingPlace, tmp_path: Path) -> None:
    keep(place, incomplete=True)
    for words in (["--all"], ["--all", "--overwrite"]):
        done = s3mount("retry", *words)
        assert (done.status, "lacks bytes" in done.err) == (1, True)
    assert s3mount("ls", "local://bucket").lines == []
    assert s3mount("export", "--all", tmp_path / "out").status == 0
    assert (tmp_path / "out").read_bytes() == b"precious"


def test_an_errand_that_nobody_heard_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: what was refused counted as discarded, where the mount that had it was just ending."""
    monkeypatch.setattr("s3mount.cli.pending_items.control.ask", lambda *_, **__: None)
    with pytest.raises(Unavailable, match="has ended"):
        RunningMount(Path("/mnt"), parse_url(URL), {}).ask("decide", verb="discard", ids=[1])


# -- discard and export -----------------------------------------------------------------------


def test_discard_wants_a_name_or_all_and_takes_nothing_else(s3mount: Command, place: PendingPlace) -> None:
    for key in ("a", "b", "c"):
        keep(place, key=key, commit_id=key * 32)
    assert s3mount("discard").status == 2
    bucket = s3mount("discard", "local://bucket")
    assert (bucket.status, "3 below it are: --all local://bucket" in bucket.err) == (1, True)
    assert s3mount("discard", "local://bucket/none").status == 1
    assert len(everything()) == 3
    assert s3mount("discard", "local://bucket/b").text == "local://bucket/b: discarded\n"
    assert [item.url.key for item in everything()] == ["a", "c"]
    assert s3mount("discard", "--all", "local://other").status == 0
    assert s3mount("discard", "--all", "local://bucket/a").status == 0
    assert [item.url.key for item in everything()] == ["c"]
    assert s3mount("ls", "local://bucket").lines == []


def test_export_writes_files_as_they_were_to_be_and_overwrites_nothing(s3mount: Command, place: PendingPlace, tmp_path: Path) -> None:
    keep(place, key="a/one")
    keep(place, key="b/one", commit_id="1" * 32, data=b"other")
    keep(place, key="b/two", commit_id="2" * 32, data=b"")
    folder = tmp_path / "out"
    assert s3mount("export", "--all", folder).status == 2
    folder.mkdir()
    done = s3mount("export", "--all", folder)
    assert (done.status, f"{folder}/one: file exists" in done.err, ".part" in done.err) == (1, True, False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"one": b"precious", "two": b""}
    status = (folder / "one").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o640, 10**18 + 7)
    assert s3mount("export", "local://bucket/b/one", tmp_path / "named").text.endswith(f"written to {tmp_path}/named\n")
    assert (tmp_path / "named").read_bytes() == b"other"
    assert len(everything()) == 3


# -- how a bucket is reached again --------------------------------------------------------------


def test_a_folder_says_how_its_bucket_is_reached_and_nothing_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: Path) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://there:1",
        "AWS_PROFILE": "work",
        "AWS_REGION": "here-1",
        "AWS_ACCESS_KEY_ID": "AKIDSECRET",
        "AWS_SECRET_ACCESS_KEY": "SECRET",
        "AWS_SESSION_TOKEN": "SECRETTOKEN",
    }.items():
        monkeypatch.setenv(name, value)
    options = S3Options(addressing="path", ca_bundle=tmp_path / "ca.pem", connect_s=3.0)
    made = place_of(parse_url("s3://bucket/prefix/"), Choice(None, options, 5.0))
    describe(made)
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name)
    (found,) = all_places()
    assert found == made
    assert str(found.url) == "s3://bucket"
    assert (found.choice.s3.endpoint, found.choice.s3.profile, found.choice.s3.region) == ("http://there:1", "work", "here-1")
    assert (found.choice.s3.ca_bundle, found.choice.retry_for_s) == (tmp_path / "ca.pem", 5.0)
    assert "SECRET" not in "".join(path.read_text() for path in state.rglob("*.json"))
    assert all(path.stat().st_mode & 0o077 == 0 for path in state.rglob("*") if path.is_file())
    again = reached_as(found, Choice(None, S3Options(profile="other")))
    assert (again.choice.s3.profile, again.choice.s3.endpoint, again.choice.retry_for_s) == ("other", "http://there:1", 5.0)


def test_services_and_data_folders_are_kept_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url, local = parse_url("s3://bucket"), parse_url("local://bucket")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    folders = [
        place_of(url, Choice()).folder,
        place_of(url, Choice(None, S3Options(endpoint="http://one"))).folder,
        place_of(url, Choice(None, S3Options(profile="p"))).folder,
        place_of(local, Choice(tmp_path / "a")).folder,
        place_of(local, Choice(tmp_path / "b")).folder,
    ]
    assert len(set(folders)) == len(folders)
    assert place_of(parse_url("s3://bucket/below/"), Choice()).folder == folders[0]


def test_the_same_place_is_written_down_once(place: PendingPlace) -> None:
    describe(place)
    before = (place.folder / "bucket.json").stat()
    describe(place)
    assert (place.folder / "bucket.json").stat().st_ino == before.st_ino
    assert json.loads((place.folder / "bucket.json").read_text())["url"] == URL


def test_ids_are_short_and_unique(place: PendingPlace) -> None:
    keep(place)
    keep(place, commit_id="1" * 32)
    items: list[Item] = everything()
    assert len({item.id for item in items}) == 2
    assert all(len(item.id) < 12 for item in items)
