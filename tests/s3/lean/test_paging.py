"""Pages: any server that lists as S3 does, asked page by page, gives every key once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.errors import Unavailable
from s3mount.model import ETag, Key, ObjectInfo
from s3mount.store.s3.lean.paging import Asked, Listed, Tokens, page_of, parameters, start_after

Keys = list[str]


def info(key: str) -> ObjectInfo:
    return ObjectInfo(Key(key), 1, ETag("e"), 0, metadata=None)


def served(keys: Keys, query: dict[str, str], *, inclusive: bool = False) -> Listed:
    """As S3 lists: StartAfter is a key, a common prefix in it means nothing. A token is the last thing listed.

    *inclusive*: a server that begins with what it was told to begin behind.
    """
    prefix, delimiter, limit = query.get("prefix", ""), query.get("delimiter", ""), int(query["max-keys"])
    token, start = query.get("continuation-token"), query.get("start-after", "")
    rows: list[tuple[bytes, bool]] = []
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix) or (token is None and (key.encode() < start.encode() or (key == start and not inclusive))):
            continue
        at = key.find(delimiter, len(prefix)) if delimiter else -1
        row = (key[: at + len(delimiter)].encode(), True) if at >= 0 else (key.encode(), False)
        if token is not None and row[0] <= token.encode():
            continue
        if row not in rows:
            rows.append(row)
    page = rows[:limit]
    objects = tuple(info(name.decode()) for name, group in page if not group)
    prefixes = tuple(name.decode() for name, group in page if group)
    return Listed(objects, prefixes, page[-1][0].decode() if len(rows) > limit else None)


def listed(keys: Keys, asked: Asked, *, forget: bool, inclusive: bool) -> list[str]:
    """Everything, page by page; with *forget* each page is asked for by somebody who has no token."""
    tokens, found, after = Tokens(), [], asked.after
    for _ in range(100):
        this = Asked(asked.prefix, asked.delimiter, after, asked.limit)
        page = page_of(served(keys, dict(parameters(this, tokens.take(this))), inclusive=inclusive), this, tokens)
        found += [*(one.key for one in page.objects), *page.prefixes]
        if page.next is None:
            return found
        after, tokens = page.next, Tokens() if forget else tokens
    raise AssertionError("a listing without end")


NAMES = st.text("ab/\U0010ffff", min_size=1, max_size=5)


@given(
    st.lists(NAMES, max_size=12, unique=True),
    st.sampled_from(["", "a", "a/"]),
    st.sampled_from(["", "/"]),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
)
def test_every_key_is_listed_once_with_tokens_or_without(
    keys: Keys, prefix: str, delimiter: str, limit: int, forget: bool, inclusive: bool
) -> None:
    whole = served(keys, {"prefix": prefix, "delimiter": delimiter, "max-keys": "1000"})
    expected = [*(one.key for one in whole.objects), *whole.prefixes]
    found = listed(keys, Asked(prefix, delimiter, "", limit + inclusive), forget=forget, inclusive=inclusive)
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("after", "expected"),
    [("", ["a", "b/", "c"]), ("a", ["b/", "c"]), ("b/", ["c"]), ("b/x", ["b/", "c"]), ("b/z", ["c"]), ("b0", ["c"]), ("c", [])],
)
@pytest.mark.parametrize("inclusive", [True, False])
def test_a_listing_begins_behind_a_key_or_behind_all_of_a_common_prefix(after: str, expected: Keys, inclusive: bool) -> None:
    keys = ["a", "b/x", "b/y", "c"]
    assert sorted(listed(keys, Asked("", "/", after), forget=True, inclusive=inclusive)) == expected


def test_the_marker_of_the_prefix_itself_is_a_key() -> None:
    assert not Asked("b/", "/", "b/").behind_a_prefix
    assert listed(["b/", "b/x"], Asked("b/", "/", "b/"), forget=True, inclusive=True) == ["b/x"]


def test_what_is_sent_for_a_common_prefix_fits_into_a_key() -> None:
    assert len(start_after(Asked("", "/", "b/")).encode()) <= 1024
    assert start_after(Asked("", "/", "x" * 1023 + "/")) == "x" * 1023 + "/"


def test_a_token_serves_once_and_old_ones_are_forgotten() -> None:
    tokens = Tokens(capacity=2)
    for name in "abc":
        tokens.keep(Asked(), name, f"token-{name}")
    assert [tokens.take(Asked(after=name)) for name in "abcc"] == [None, "token-b", "token-c", None]


def test_a_token_that_nobody_comes_for_is_forgotten_the_second_time() -> None:
    tokens = Tokens()
    tokens.keep(Asked(), "a", "token-a")
    tokens.let_go()
    tokens.keep(Asked(), "b", "token-b")
    tokens.keep(Asked(), "c", "token-c")
    tokens.let_go()
    assert [tokens.take(Asked(after=name)) for name in "ab"] == [None, "token-b"]
    tokens.let_go()
    assert tokens.take(Asked(after="c")) is None


def test_a_listing_that_does_not_get_on_is_an_error_and_no_end() -> None:
    with pytest.raises(Unavailable):
        page_of(Listed((info("j"),), (), "token"), Asked(after="k"), Tokens())
