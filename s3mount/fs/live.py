"""What a file inode carries while somebody holds it, or while it has something to commit.

Owns: its attributes, its content, and who holds it.
Must not know: names, the table, stores.

Set-id bits go when somebody without privilege writes (POSIX leaves that to us). The kernel writes late: what arrives after a chmod may have
been written before it. So since the bits were set, only what arrives behind a flush counts, for a flush brings all that is older
(`settled`). What is written while they are set, the kernel sends at once.

    created or first opened --> held (holders > 0) --last holder gone, nothing left to write--> retired (content closed)
                                                   \\--a commit failed--> waiting: the background and aclose try again
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import trio

from s3mount.fs.attrs import Attributes, without_set_id
from s3mount.fs.content import FileContent
from s3mount.model import NO_METADATA, Key, Metadata, ObjectInfo

SET_ID = stat.S_ISUID | stat.S_ISGID


class Live:
    """Content and attributes of one inode, shared by all its handles.

    `unsaved`: the attributes differ from the object's. `fresh`: no object yet. `whole`: all that the object says is known.
    `in_flight`: how many requests under way may change the version. `since_ns`: no write of this content was earlier.
    `failed_ns`: since when commits of it fail (0: they do not), `tries` of them.
    `due_s`: when the background tries again (trio's time).
    """

    __slots__ = (
        "_attributes",
        "_written_ns",
        "content",
        "content_type",
        "due_s",
        "exclusive",
        "failed_ns",
        "foreign",
        "fresh",
        "holders",
        "in_flight",
        "links",
        "reserved",
        "riding",
        "saving",
        "settled",
        "since_ns",
        "storage_class",
        "tries",
        "unsaved",
        "whole",
    )

    def __init__(self, content: FileContent, attributes: Attributes, base: ObjectInfo | None) -> None:
        self.content = content
        self._attributes = attributes
        self._written_ns = 0
        self.foreign: Metadata = NO_METADATA if base is None or base.metadata is None else base.metadata
        self.content_type = "application/octet-stream" if base is None else base.content_type
        self.storage_class = "STANDARD" if base is None else base.storage_class
        self.whole = base is None
        self.links = 1 if base is None else base.links
        self.fresh = base is None
        self.exclusive = False
        self.reserved: Key | None = None
        self.unsaved = base is None
        self.holders = 0
        self.in_flight = 0
        self.riding: Attributes | None = None
        self.failed_ns = 0
        self.tries = 0
        self.due_s = 0.0
        self.saving: trio.Event | None = None
        self.since_ns = attributes.ctime_ns
        self.settled = True

    def __repr__(self) -> str:
        return f"<Live holders={self.holders} {self.content!r}{' fresh' if self.fresh else ''}{' unsaved' if self.unsaved else ''}>"

    @property
    def attributes(self) -> Attributes:
        if self._written_ns:
            self._attributes = self._attributes.at(self._written_ns, self._written_ns)
            self._written_ns = 0
        return self._attributes

    @attributes.setter
    def attributes(self, attributes: Attributes) -> None:
        if attributes.mode & ~self._attributes.mode & SET_ID:
            self.settled = False
        self._attributes, self._written_ns = attributes, 0
        self.unsaved = True

    def took(self, attributes: Attributes) -> None:
        """The object has *attributes* for ours, and that will do."""
        self._attributes, self._written_ns = attributes, 0
        self.unsaved = False

    def is_whole(self, info: ObjectInfo, attributes: Attributes) -> None:
        """*info* is all that the object says, and its *attributes*; nothing has been changed yet."""
        self.foreign, self.content_type, self.storage_class = info.metadata or NO_METADATA, info.content_type, info.storage_class
        self.whole = True
        if not self.unsaved:
            self.show(attributes)

    def show(self, attributes: Attributes) -> None:
        """Until there is something to save, show *attributes*; then they are saved too."""
        self._attributes, self._written_ns = attributes, 0

    def written(self, now_ns: int, *, privileged: bool) -> None:
        """Somebody wrote into the content; *privileged* writers leave the set-id bits where they are, as on Linux."""
        self._written_ns = now_ns
        self.unsaved = True
        if self._attributes.mode & SET_ID and self.settled and not privileged:
            self._attributes = replace(self._attributes, mode=without_set_id(self._attributes.mode))

    def succeeded(self) -> None:
        """A commit went through."""
        self.failed_ns = self.tries = 0

    def failed(self, now_ns: int) -> None:
        """A commit did not."""
        self.failed_ns = self.failed_ns or now_ns
        self.tries += 1

    @contextmanager
    def renewing(self, metadata: Metadata) -> Iterator[None]:
        """For whoever has the object made anew, with the same bytes, to say *metadata*."""
        self.in_flight += 1
        try:
            with self.content.renewals.making(metadata):
                yield
        finally:
            self.in_flight -= 1

    def may_have_made(self, info: ObjectInfo | None) -> bool:
        """Whether *info*, or that there is no object, may come of a request under way."""
        renewals, committed = self.content.renewals, self.content.committed
        if self.in_flight > len(renewals):
            return True  # of a commit
        if info is None or committed is None:
            return False
        return (self.in_flight > 0 and info.etag == committed.etag) or renewals.may_have_made(info, committed)
