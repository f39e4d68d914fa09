"""What a test sees of an engine: every byte and every name, and whether anything is left over."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from s3mount.engine.engine import Engine
from s3mount.model import Key, ObjectInfo

BUCKET = "bucket"


@dataclass(frozen=True)
class State:
    """All objects with their bytes and metadata, uploads under way with their parts."""

    objects: dict[str, tuple[bytes, tuple[tuple[str, str], ...]]]
    uploads: dict[str, tuple[tuple[int, int], ...]]

    def contents(self) -> dict[str, bytes]:
        return {key: content for key, (content, _) in self.objects.items()}


def content_of(engine: Engine, key: str) -> bytes:
    reader = engine.open_object(BUCKET, Key(key))
    try:
        buffer = bytearray(reader.info.size)
        reader.read_into(0, memoryview(buffer))
        return bytes(buffer)
    finally:
        reader.close()


def listed(engine: Engine) -> list[ObjectInfo]:
    found: list[ObjectInfo] = []
    after: str | None = ""
    while after is not None:
        page = engine.list(BUCKET, after=after)
        found += page.objects
        after = page.next
    return found


def observe(engine: Engine) -> State:
    objects = {str(info.key): (content_of(engine, info.key), tuple(sorted((info.metadata or {}).items()))) for info in listed(engine)}
    uploads = {
        str(upload.key): tuple((part.number, part.size) for part in engine.parts(BUCKET, upload)) for upload in engine.uploads(BUCKET)
    }
    return State(objects, uploads)


def body_files(folder: Path) -> set[str]:
    return {name for _, _, names in os.walk(folder / "bodies") for name in names}


def leftovers(engine: Engine) -> list[str]:
    """Files that nothing needs, once everything is synced and swept."""
    with engine.index.read() as db:
        known = {name for (name,) in db.execute("SELECT name FROM body WHERE name IS NOT NULL")}
    strange = [f"bodies/{name}" for name in body_files(engine.folder) - known]
    strange += [f"staging/{name}" for name in os.listdir(engine.folder / "staging") if name != engine.owner.id]
    strange += [f"staging/{engine.owner.id}/{name}" for name in os.listdir(engine.staging) if name != "owner.lock"]
    strange += [f"log/{name}" for name in os.listdir(engine.folder / "log") if not name.endswith((".log", ".snap", "voids"))]
    strange += [name for name in os.listdir(engine.folder) if name.startswith(("format.", "boot."))]
    return strange
