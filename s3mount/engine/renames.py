"""Changes of names: rename, rename of a prefix, exchange, link.

Owns: what may be renamed onto what. Must not know: contents.
"""

from __future__ import annotations

import sqlite3

from s3mount.engine import queries
from s3mount.engine.apply import exchanged
from s3mount.engine.commit import Answer, Transaction
from s3mount.engine.core import exists
from s3mount.engine.names import end_of, key_bytes, require_apart, sought_bytes
from s3mount.engine.objects import Objects
from s3mount.engine.records import Exchange, Link, Rename, RenamePrefix
from s3mount.errors import InvalidName
from s3mount.model import KEY_BYTES, Key, ObjectInfo


class Renames(Objects):
    def rename(self, bucket: str, source: Key, target: Key, *, replace: bool = True, durable: bool = True) -> None:
        """Raises NotFound; AlreadyExists without *replace*. Onto another link of the same file it does nothing, as in POSIX."""
        old, new = sought_bytes(source), key_bytes(target)

        def decide(tx: Transaction) -> Answer[None]:
            where = queries.require_bucket(tx.db, bucket).id
            file, etag = self.named(tx, where, old)
            if not file:
                raise queries.not_found(source)
            there, _ = self.named(tx, where, new)
            if not replace and (there or self.reserved(tx.db, where, new)):
                raise exists(target)
            if there != file:
                tx.ops.append(Rename(where, old, new, tx.time_ns, etag))
                tx.files.add(file)
            return self.freeing(where, new, lambda db: None)

        self.commits.run(decide, durable=durable)

    def rename_prefix(self, bucket: str, source: str, target: str, *, replace: bool = True, durable: bool = True) -> int:
        """Move every key under *source* (ends with "/") to the same place under *target*, in one transaction; how many were moved.

        Keys under *target*, other than its marker, raise AlreadyExists; so does the marker without *replace*. Raises NotFound when nothing
        lies under *source*, ValueError when one lies inside the other, InvalidName when a key would become too long.
        """
        require_apart(source, target)
        old, new = sought_bytes(source), key_bytes(target)

        def decide(tx: Transaction) -> Answer[int]:
            where = queries.require_bucket(tx.db, bucket).id
            count = _count(tx.db, where, old, growth=len(new) - len(old))
            if not count:
                raise queries.not_found(source)
            taken = [key for (key,) in tx.db.execute(f"SELECT key {_UNDER} ORDER BY key LIMIT 2", (where, new, end_of(new)))]
            if taken and (not replace or taken != [new]):
                raise exists(target)
            tx.ops.append(RenamePrefix(where, old, new, tx.time_ns))
            tx.files.update(_unsynced_files(tx.db, where, old))
            return lambda db: count

        return self.commits.run(decide, durable=durable)

    def exchange(self, bucket: str, a: str, b: str, *, durable: bool = True) -> None:
        """Swap two names, each a key or a prefix that ends with "/"; each keeps its kind ("x" and "y/" become "y" and "x/").

        Raises NotFound, ValueError when one lies inside the other, AlreadyExists when an object of the new name is in the way.
        """
        one, other = key_bytes(a), key_bytes(b)
        if a != b and (a.endswith("/") or b.endswith("/")):
            require_apart(a.rstrip("/") + "/", b.rstrip("/") + "/")

        def decide(tx: Transaction) -> Answer[None]:
            where = queries.require_bucket(tx.db, bucket).id
            for name, raw, renamed in ((a, one, exchanged(one, other)[0]), (b, other, exchanged(one, other)[1])):
                if not self._stands(tx.db, where, raw, growth=len(renamed) - len(raw)):
                    raise queries.not_found(name)
                if renamed not in (one, other) and self._stands(tx.db, where, renamed):
                    raise exists(renamed.decode())
            if one != other:
                tx.ops.append(Exchange(where, one, other, tx.time_ns))
                tx.files.update(file for name in (one, other) for file in _unsynced_files(tx.db, where, name))
            return lambda db: None

        self.commits.run(decide, durable=durable)

    def _stands(self, db: sqlite3.Connection, bucket: int, name: bytes, growth: int = 0) -> int:
        """How many keys the name stands for. Raises InvalidName if one of them cannot grow by *growth* bytes."""
        if name.endswith(b"/"):
            return _count(db, bucket, name, growth)
        return int(db.execute("SELECT count(*) FROM name WHERE bucket = ? AND key = ?", (bucket, name)).fetchone()[0])

    def link(self, bucket: str, source: Key, target: Key, *, durable: bool = True) -> ObjectInfo:
        """A second key for the file. Raises NotFound, AlreadyExists."""
        old, new = sought_bytes(source), key_bytes(target)

        def decide(tx: Transaction) -> Answer[ObjectInfo]:
            where = queries.require_bucket(tx.db, bucket).id
            file, _ = self.named(tx, where, old)
            if not file:
                raise queries.not_found(source)
            if self.named(tx, where, new)[0] or self.reserved(tx.db, where, new):
                raise exists(target)
            tx.ops.append(Link(where, file, new))
            tx.files.add(file)
            return self.info(where, file, new)

        return self.commits.run(decide, durable=durable)


def _unsynced_files(db: sqlite3.Connection, bucket: int, name: bytes) -> list[int]:
    """The files under *name* (a key, or all keys of a prefix) with bodies that may not be synced: few, whatever the prefix holds."""
    end = end_of(name) if name.endswith(b"/") else name + b"\0"
    rows = db.execute(
        "SELECT DISTINCT n.file FROM unsynced u CROSS JOIN name n ON n.file = u.file WHERE n.bucket = ? AND n.key >= ? AND n.key < ?",
        (bucket, name, end),
    )
    return [file for (file,) in rows]


_UNDER = "FROM name WHERE bucket = ? AND key >= ? AND key < ?"


def _count(db: sqlite3.Connection, bucket: int, prefix: bytes, growth: int) -> int:
    """How many keys lie under *prefix*. Raises InvalidName if one of them cannot grow by *growth* bytes."""
    count, longest = db.execute(f"SELECT count(*), max(length(key)) {_UNDER}", (bucket, prefix, end_of(prefix))).fetchone()
    if count and growth > 0 and longest + growth > KEY_BYTES:
        raise InvalidName(f"A key under {prefix.decode(errors='replace')!r} would have more than {KEY_BYTES} bytes.")
    return int(count)
