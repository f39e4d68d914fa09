"""What operands name, and the file names of keys."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.cli.copying import with_shadows
from s3mount.cli.places import File, Pipe, inside, key_of, last_name, parse_bucket_url, parse_object_url, parse_place, path_of
from s3mount.config import StoreUrl
from s3mount.errors import UsageError
from s3mount.model import ETag, Key, ObjectInfo


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("-", Pipe()),
        ("a/b", File(Path("a/b"))),
        ("a/", File(Path("a"), folder=True)),
        ("a/.", File(Path("a"), folder=True, contents=True)),
        (".", File(Path(), folder=True, contents=True)),
        ("./local://x", File(Path("local://x"))),
        ("a:b", File(Path("a:b"))),
        ("local://bucket", StoreUrl("local", "bucket")),
        ("local://bucket/a//b/", StoreUrl("local", "bucket", "a//b/")),
    ],
)
def test_an_operand_is_a_pipe_a_file_or_a_url(text: str, place: object) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gs://bucket/key", "begin with local:// or s3://"),
        ("s3://", "names no bucket"),
        ("local://", "names no bucket"),
        ("local:///key", "names no bucket"),
    ],
)
def test_a_url_of_another_kind_is_refused(text: str, words: str) -> None:
    for parse in (parse_place, parse_bucket_url):
        with pytest.raises(UsageError, match=words):
            parse(text)


def test_an_object_needs_a_key() -> None:
    with pytest.raises(UsageError, match="names a bucket, not an object"):
        parse_object_url("local://bucket")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("a/b.txt", "b.txt"),
        ("a/", "a"),
        (".", ""),
        ("..", ""),
        ("a/..", ""),
        ("a/.", ""),
        ("/", ""),
        (os.fsdecode(b"caf\xe9"), "caf␛E9"),
        ("local://bucket/a/b", "b"),
        ("local://bucket/a/b/", "b"),
        ("local://bucket/", ""),
    ],
)
def test_a_copy_keeps_the_last_name(source: str, name: str) -> None:
    assert last_name(parse_place(source)) == name


def test_standard_input_has_no_name() -> None:
    with pytest.raises(UsageError, match="has no name"):
        last_name(Pipe())


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a/b", "a/b"),
        ("a//b", "a/␛_/b"),
        ("../../etc/passwd", "␛../␛../etc/passwd"),
        ("/etc/passwd", "␛_/etc/passwd"),
        ("a/./b", "a/␛./b"),
        ("a\0b", "a␛0b"),
        ("a/", "a/␛_"),
        ("k" * 300, "k" * 251 + "␛>/" + "k" * 49),
        ("caf␛E9", os.fsdecode(b"caf\xe9")),
    ],
)
def test_a_key_becomes_the_path_a_mount_shows_and_back(key: str, path: str) -> None:
    assert path_of(key) == Path(path)
    assert key_of(Path(path)) == key


def test_a_shadowed_object_gets_a_name_of_its_own() -> None:
    assert path_of("x/a", shadowed=True) == Path("x/a␛f")
    assert key_of(Path("x/a␛f")) == "x/a"


@given(st.text(alphabet=st.sampled_from("a./␛_0>fE9\0"), min_size=1, max_size=12))
def test_no_key_leads_out_of_its_folder_and_each_comes_back(key: str) -> None:
    path = path_of(key)
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert key_of(path) == key
    assert inside(File(Path("/folder")), key) == File(Path("/folder") / path)


async def infos(keys: list[str]) -> AsyncGenerator[ObjectInfo, None]:
    for key in sorted(keys, key=str.encode):
        yield ObjectInfo(Key(key), 0, ETag(""), 0)


async def shadows(keys: list[str]) -> dict[str, bool]:
    async with aclosing(with_shadows(infos(keys))) as found:
        return {info.key: shadowed async for info, shadowed in found}


@pytest.mark.parametrize(
    ("keys", "shadowed"),
    [
        (["a", "b"], set()),
        (["a", "a/b"], {"a"}),
        (["a", "a/"], {"a"}),
        (["a", "a-", "a-b/c", "a.", "a/b"], {"a"}),
        (["a", "a-", "a-/b", "a/b", "a/b/c", "a0"], {"a", "a-", "a/b"}),
        (["a/", "a/b"], set()),
    ],
)
async def test_an_object_is_shadowed_by_keys_below_it(keys: list[str], shadowed: set[str]) -> None:
    assert await shadows(keys) == {key: key in shadowed for key in keys}


@given(keys=st.sets(st.text(alphabet="a-/0", min_size=1, max_size=5), max_size=12))
async def test_shadows_are_found_in_any_listing(keys: set[str]) -> None:
    expected = {key: not key.endswith("/") and any(other.startswith(key + "/") for other in keys) for key in keys}
    assert await shadows(list(keys)) == expected
