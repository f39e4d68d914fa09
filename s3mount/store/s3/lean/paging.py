"""Where a page of a listing begins, and where the next one does.

Owns: the parameters that ask for a page, what a server's page means, `Tokens`.
Must not know: XML, sockets, which lane asks. Pure.

A page's `next` is plain text, the last key or common prefix of the page, so that it stays valid for any store, process and time. S3 wants
an opaque continuation token instead: `Tokens` remembers which token belongs to which `next`. Without one (a page asked for out of the blue)
StartAfter says where to begin, with two differences to what the contract wants, both made up for here:

    a common prefix as the beginning skips none of its keys: the greatest key that can lie in it is sent instead
    some servers repeat what they were told to begin behind: it is dropped

Keys are compared as text: the order of code points is the order of their UTF-8 bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from s3mount.errors import Unavailable
from s3mount.model import ObjectInfo, Page
from s3mount.store.api import PAGE_KEYS

# S3's limit for a key; what is listed cannot lie behind a longer one.
KEY_BYTES = 1024
# The last code point: no key sorts behind a run of them.
LAST = "\U0010ffff"
# Listings under way at once whose tokens are worth remembering.
TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """One page, as the caller asks for it."""

    prefix: str = ""
    delimiter: str = ""
    after: str = ""
    limit: int = PAGE_KEYS

    @property
    def behind_a_prefix(self) -> bool:
        """Whether `after` is a common prefix, all of which is to be skipped."""
        ends = bool(self.delimiter) and self.after.endswith(self.delimiter)
        return ends and self.after.startswith(self.prefix) and len(self.after) > len(self.prefix)


@dataclass(frozen=True, slots=True)
class Listed:
    """One page, as the server gave it. `token` continues it; None: this was the last."""

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]
    token: str | None


class Tokens:
    """Continuation tokens by the listing and its `next`, and in which round each came; the oldest are forgotten."""

    def __init__(self, capacity: int = TOKENS) -> None:
        self._tokens: OrderedDict[tuple[str, str, str], tuple[str, int]] = OrderedDict()
        self._capacity = capacity
        self._round = 0

    def take(self, asked: Asked) -> str | None:
        """The token that continues behind `asked.after`, once."""
        kept = self._tokens.pop((asked.prefix, asked.delimiter, asked.after), None)
        return None if kept is None else kept[0]

    def keep(self, asked: Asked, behind: str, token: str) -> None:
        self._tokens[asked.prefix, asked.delimiter, behind] = token, self._round
        if len(self._tokens) > self._capacity:
            self._tokens.popitem(last=False)

    def let_go(self) -> None:
        """Called now and then: forget those that came before the last time. A listing in ranges leaves one behind with each page."""
        self._round += 1
        while self._tokens and next(iter(self._tokens.values()))[1] < self._round - 1:
            self._tokens.popitem(last=False)


def parameters(asked: Asked, token: str | None) -> Mapping[str, str]:
    """The query of a ListObjectsV2 request."""
    query = {"list-type": "2", "encoding-type": "url", "max-keys": str(max(1, min(asked.limit, PAGE_KEYS)))}
    if asked.prefix:
        query["prefix"] = asked.prefix
    if asked.delimiter:
        query["delimiter"] = asked.delimiter
    if token is not None:
        query["continuation-token"] = token
    elif asked.after:
        query["start-after"] = start_after(asked)
    return query


def start_after(asked: Asked) -> str:
    """The key behind which every wanted key lies, and no unwanted one."""
    if not asked.behind_a_prefix:
        return asked.after
    return asked.after + LAST * ((KEY_BYTES - len(asked.after.encode())) // len(LAST.encode()))


def page_of(listed: Listed, asked: Asked, tokens: Tokens) -> Page:
    """*listed* without what lies before `asked.after`; its continuation is remembered.

    Raises Unavailable for a listing that goes on and has nothing: asking on could last for ever, and to end would lose keys.
    """
    after, objects, prefixes = asked.after, listed.objects, listed.prefixes
    if after and objects and objects[0].key <= after:
        objects = tuple(info for info in objects if info.key > after)
    if after and prefixes and prefixes[0] <= after:
        prefixes = tuple(_behind(prefixes, asked))
    if listed.token is None:
        return Page(objects, prefixes, None)
    behind = last_of(objects, prefixes)
    if not behind:
        raise Unavailable("The endpoint's listing does not get on.")
    tokens.keep(asked, behind, listed.token)
    return Page(objects, prefixes, behind)


def last_of(objects: Sequence[ObjectInfo], prefixes: Sequence[str]) -> str:
    """The last key or common prefix in byte order; "" where there is none."""
    ends: list[str] = [objects[-1].key] if objects else []
    ends += prefixes[-1:]
    return max(ends, default="")


def _behind(prefixes: Iterable[str], asked: Asked) -> Iterable[str]:
    """A common prefix that *after* lies inside of may still hold keys behind it."""
    after = asked.after
    return (prefix for prefix in prefixes if prefix > after or (prefix != after and after.startswith(prefix)))
