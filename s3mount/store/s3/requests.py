"""How a mutation is asked for: by the lane or by the client, under its conditions, with its descriptions.

Owns: which of the two lanes, the condition as headers, what an absent key means to it.
Must not know: which requests a verb of the protocol takes, what their answers say.
"""

from __future__ import annotations

from typing import Any

from s3mount.errors import NotFound, Unsupported
from s3mount.model import Absent, Key, Matches, ObjectInfo
from s3mount.store.api import Commit
from s3mount.store.rules import changed
from s3mount.store.s3.answers import Asked
from s3mount.store.s3.client import Answer, Client
from s3mount.store.s3.headers import etag_out, sent_metadata, with_commit_id
from s3mount.store.s3.lean.lane import Lane
from s3mount.store.s3.lean.origin import Unfit
from s3mount.store.s3.replies import given


class Requests:
    """Changes *bucket* by way of *lane* (None: not at all) and *client*."""

    def __init__(self, client: Client, bucket: str, lane: Lane | None) -> None:
        self.client = client
        self.bucket = bucket
        self.conditional = not client.options.last_writer_wins
        self._lane = lane

    async def change(self, operation: str, asked: Asked, **parameters: Any) -> Answer:
        """The answer to one mutation: by the lane where that is fit for it, else by the client."""
        if self._lane is not None and self._lane.fit:
            try:
                return await self._lane.change(operation, asked, {**self.client.going_with(operation), **parameters})
            except Unfit:
                pass
        return await self.client(operation, asked, **parameters)

    async def mutate(self, operation: str, key: Key, commit: Commit | None, **parameters: Any) -> Answer:
        """A write of *key* under the commit's condition. An absent key is not the version that `Matches` expects."""
        condition = commit.condition if commit else None
        asked = self.asked(key, mutates=True, absent=isinstance(condition, Absent))
        try:
            return await self.change(operation, asked, Bucket=self.bucket, Key=key, **parameters)
        except NotFound:
            if isinstance(condition, Matches):
                raise changed(key) from None
            raise
        except Unsupported as error:
            if condition is not None and self.conditional:
                raise Unsupported(f"{str(error).rstrip('.')}: where it is conditions that it lacks, use --last-writer-wins.") from error
            raise

    def asked(self, key: str = "", *, mutates: bool = False, absent: bool = False) -> Asked:
        return Asked(bucket=self.bucket, key=key, mutates=mutates, absent=absent)

    def source(self, source: ObjectInfo) -> dict[str, Any]:
        """The parameters of a copy that name what is copied, and which version of it."""
        return {"CopySource": {"Bucket": self.bucket, "Key": source.key}, "CopySourceIfMatch": etag_out(source.etag)}

    def described(self, commit: Commit) -> dict[str, Any]:
        """The parameters that say everything about a new version but its bytes. Raises TooLarge, Unsupported."""
        metadata = sent_metadata(with_commit_id(commit))
        return {"Metadata": metadata, "ContentType": commit.content_type, **given(StorageClass=unusual(commit.storage_class))}

    def conditions(self, commit: Commit) -> dict[str, Any]:
        """The parameters that let the commit happen only where it may."""
        match commit.condition:
            case Absent() if self.conditional:
                return {"IfNoneMatch": "*"}
            case Matches(etag) if self.conditional:
                return {"IfMatch": etag_out(etag)}
        return {}


def unusual(storage_class: str) -> str | None:
    """What has to be said; a copy would be STANDARD else."""
    return storage_class if storage_class != "STANDARD" else None
