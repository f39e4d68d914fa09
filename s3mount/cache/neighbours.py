"""The next files of a walk, fetched before they are asked for: small ones whole, of others the first request.

Owns: which blocks are here for which walk, and giving them up when it is over.
Must not know: how a walk is recognised (see file_walk), how blocks are fetched.
"""

from __future__ import annotations

import trio

from s3mount.cache.fetches import Fetcher
from s3mount.cache.file_walk import IDLE_SECONDS, Ahead, Head, Siblings, Walks
from s3mount.cache.versions import Block, Versions
from s3mount.model import ObjectInfo


class Neighbours:
    """The first *most* bytes of the files ahead of every walk, *room* bytes for each."""

    def __init__(self, versions: Versions, fetcher: Fetcher, siblings: Siblings, *, most: int, room: int) -> None:
        self.walks = Walks(siblings, most=most, room=room)
        self._versions = versions
        self._fetcher = fetcher
        self._most = most
        self._asked: dict[Head, dict[int, Block]] = {}

    def read(self, info: ObjectInfo) -> None:
        """The first read of a file since it was opened."""
        now = trio.current_time()
        ahead = self.walks.read(info, now)
        self._taken(info)
        for head in ahead.over:
            self._end(head)
        if ahead.head is not None:
            self._pass(ahead.head, ahead.passed)
            self._ask(ahead.head, ahead)
            for further in ahead.onward:
                assert further.head is not None
                self._ask(further.head, further)
        if self._asked:
            self._end_idle(now)

    def _taken(self, info: ObjectInfo) -> None:
        """The walk has come to it: from here on it is wanted by its readers alone."""
        version = self._versions.get(info)
        block = version.covering(0) if version else None
        if block is not None:
            for head in [wanter for wanter in block.wanters if isinstance(wanter, Head)]:
                block.unwant(head)

    def _ask(self, head: Head, ahead: Ahead) -> None:
        for place, info in ahead.files:
            if not info.size:
                continue
            version = self._versions.of(info)
            if len(version) or version.lost:
                self._versions.drop_if_idle(version)
                continue
            block = version.add(0, min(info.size, self._most))
            block.want(head)
            self._asked.setdefault(head, {})[place] = block
            self._fetcher.add(block)
        self._fetcher.pump()

    def _pass(self, head: Head, place: int) -> None:
        """What lies before *place* was left out."""
        asked = self._asked.get(head, {})
        for passed in [other for other in asked if other < place]:
            self._let_go(head, asked.pop(passed))

    def _end(self, head: Head) -> None:
        for block in self._asked.pop(head, {}).values():
            self._let_go(head, block)

    def _end_idle(self, now: float) -> None:
        for head in [head for head in self._asked if head.moved < now - IDLE_SECONDS]:
            self._end(head)

    def _let_go(self, head: Head, block: Block) -> None:
        block.unwant(head)
        self._fetcher.abandon_unneeded(block)
