"""That this mount has an object made anew, with the same bytes: what it may find of it until the answer is there.

Owns: what is being made of one object, and who waits for the outcome.
Must not know: how it is made, inodes, pins.

On S3 attributes are changed by a copy of the object onto itself, and the copy of an object of many parts has an ETag of its own. It is
there before its answer: what was pinned has gone by then, and what a look finds was not made by anybody else. But not everything that is
found meanwhile is ours: a commit of this mount is known by its id, which its copies keep, another object by what it was to say of itself.

As long as that may be, a look lets the file be what it was. Reading on from what was found takes more: what says nothing of itself is like
any other of its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from s3mount.model import Metadata, ObjectInfo
from s3mount.store.aspects import is_same_commit, without_commit_id


class Renewals:
    """Those of one object. Its length is how many are under way.

    What one that failed has done is open until it is found, or the next one or a commit goes through.
    """

    def __init__(self, *, told: bool = True) -> None:
        """*told*: a look tells what an object says of itself."""
        self._told = told
        self._under_way: list[Metadata] = []
        self._failed: Metadata | None = None
        self._news = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._under_way)

    @contextmanager
    def making(self, metadata: Metadata) -> Iterator[None]:
        """For whoever has the object made anew, to say *metadata*; without an error it is known what has become of it."""
        self._under_way.append(said := without_commit_id(metadata))
        try:
            yield
            self._failed = None
        except BaseException:
            self._failed = said
            raise
        finally:
            self._under_way.remove(said)
            self._news.unpark_all()

    @property
    def open(self) -> bool:
        """Whether one has failed, and it is not known what it has done."""
        return self._failed is not None

    def settled(self) -> None:
        """It is known, or does not matter any more: what it was to be made of has gone."""
        self._failed = None

    async def over(self) -> None:
        """Until none is under way."""
        while self._under_way:
            await self._news.park()

    def may_have_made(self, info: ObjectInfo, former: ObjectInfo) -> bool:
        """Whether *info*, which a look has found, may have been made of the version *former*, without an answer yet."""
        if not self._said or info.size != former.size:
            return False
        is_silent = info.metadata is None or not (self._told or info.metadata)
        return is_silent or is_same_commit(info, former) or without_commit_id(info.metadata) in self._said

    def has_made(self, info: ObjectInfo, former: ObjectInfo) -> bool:
        """As `may_have_made`, where *info* is all that the object says: it has to say so."""
        if not self._said or info.size != former.size:
            return False
        says = without_commit_id(info.metadata)
        return is_same_commit(info, former) or (bool(says) and says in self._said)

    @property
    def _said(self) -> list[Metadata]:
        return [*self._under_way, *([] if self._failed is None else [self._failed])]
