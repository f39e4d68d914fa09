"""A bucket seen as a tree: the whole semantics on one page, for comparison with `Filesystem`.

Owns: what is in the bucket, what is open, and what each operation must do or refuse.
Must not know: the code under test (but its errors), stores, names that need an escape (but "␛f", a shadowed object).

Paths are keys. A `Body` is what hard links share; a `Held` is an open file: the version it stands on, its own bytes, and whether they are
in the bucket. A `Held` is current while its body still has the version it stands on and a key; else somebody else replaced it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from s3mount.errors import AlreadyExists, Exists, Invalid, IsADirectory, NoEntry, NotADirectory, NotEmpty, Stale

SHADOW = "␛f"


@dataclass(eq=False)
class Body:
    data: bytes = b""
    mode: int = 0o644
    version: int = 0


@dataclass(eq=False)
class Held:
    key: str
    body: Body
    version: int | None
    data: bytearray
    mode: int
    changed: bool = False
    emptied: bool = False
    written: bool = False
    unlinked: bool = False
    exclusive: bool = False
    handles: int = 0


@dataclass
class Reference:
    """*reserves*: the store decides O_EXCL at create; else it is decided at the commit."""

    reserves: bool = True
    objects: dict[str, Body] = field(default_factory=dict)
    fresh: dict[str, Held] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    held: list[Held] = field(default_factory=list)

    # -- looking ----------------------------------------------------------------------

    def is_directory(self, path: str) -> bool:
        return not path or any(key.startswith(path + "/") for key in {*self.objects, *self.kept})

    def is_shadow(self, path: str) -> bool:
        """Whether *path* is the second name of a file, the one it is listed under while a directory shadows it."""
        return path.endswith(SHADOW) and self.exists_file(path)

    def exists(self, path: str) -> bool:
        return self.is_directory(path) or path in self.objects or path in self.fresh

    def key_of(self, path: str) -> str:
        """The key of the file *path*, which may be its second name. Raises NoEntry, IsADirectory."""
        self.require_parent(path)
        key = path.removesuffix(SHADOW)
        if path == key and self.is_directory(key):
            raise IsADirectory
        if key not in self.objects and key not in self.fresh:
            raise NoEntry
        return key

    def require_parent(self, path: str) -> None:
        for at in (at for at, char in enumerate(path) if char == "/"):
            if not self.is_directory(path[:at]):
                raise NotADirectory if self.exists(path[:at]) else NoEntry

    def tree(self) -> dict[str, tuple[int, bytes] | None]:
        """Every path: its mode and bytes, None for a directory."""
        seen: dict[str, tuple[int, bytes] | None] = {}
        for key in {*self.objects, *self.fresh, *self.kept}:
            parts = key.split("/")
            directories = ["/".join(parts[:at]) for at in range(1, len(parts))]
            if all(self.is_directory(path) for path in directories):
                seen.update(dict.fromkeys(directories))
                if parts[-1]:
                    held = self.held_at(key)
                    name = key + SHADOW if self.is_directory(key) else key
                    seen[name] = (held.mode, bytes(held.data)) if held else (self.objects[key].mode, self.objects[key].data)
        return seen

    def held_at(self, key: str) -> Held | None:
        """The open file that *key* names now."""
        if key in self.fresh:
            return self.fresh[key]
        body = self.objects[key]
        return next((held for held in self.held if held.body is body and held.version == body.version and not held.unlinked), None)

    def is_current(self, held: Held) -> bool:
        return held.version == held.body.version and held.body in self.objects.values()

    # -- files ------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, truncate: bool = False) -> Held:
        self.require_parent(path)
        key = path.removesuffix(SHADOW)
        if exclusive and (self.exists(path) or self.is_shadow(path)):
            raise Exists
        if create and path == key and not self.exists(key):
            held = Held(key, Body(), None, bytearray(), 0o644, changed=True, exclusive=exclusive and not self.reserves)
            self.fresh[key] = held
            self.held.append(held)
        else:
            key = self.key_of(path)
            held = self.held_at(key) or self.hold(key)
        held.handles += 1
        if truncate and held.data:
            held.data, held.changed, held.emptied, held.written = bytearray(), True, True, False
        return held

    def hold(self, key: str) -> Held:
        body = self.objects[key]
        held = Held(key, body, body.version, bytearray(body.data), body.mode)
        self.held.append(held)
        return held

    def write(self, held: Held, offset: int, data: bytes) -> None:
        held.data.extend(bytes(max(0, offset - len(held.data))))
        held.data[offset : offset + len(data)] = data
        held.changed = held.written = True

    def truncate(self, path: str, size: int) -> None:
        held = self.open(path)
        if size != len(held.data):
            if size == 0:
                held.emptied, held.written = True, False
            else:
                held.written = True
            held.data = held.data[:size].ljust(size, b"\0")
            held.changed = True
        if held.handles == 1:
            self.close(held)
        else:
            held.handles -= 1

    def flush(self, held: Held) -> None:
        if held.written:
            self.commit(held)

    def commit(self, held: Held) -> None:
        if held.unlinked or not held.changed:
            return
        if held.version is not None and not self.is_current(held) and not held.emptied:
            raise Stale
        if held.exclusive and held.version is None and held.key in self.objects:
            raise AlreadyExists
        if held.version is None or not self.is_current(held):
            self.objects[held.key] = held.body
            self.fresh.pop(held.key, None)
        held.body.data, held.body.mode = bytes(held.data), held.mode
        held.body.version += 1
        held.version = held.body.version
        held.changed = held.emptied = held.written = False

    def close(self, held: Held) -> None:
        held.handles -= 1
        try:
            if not held.handles:
                self.commit(held)
        finally:
            if not held.handles:
                self.held.remove(held)
                self.fresh = {key: other for key, other in self.fresh.items() if other is not held}

    def chmod(self, path: str, mode: int) -> None:
        self.require_parent(path)
        if self.is_directory(path):
            if path:
                self.objects.setdefault(path + "/", Body())
            return
        key = self.key_of(path)
        held = self.held_at(key)
        if held is not None:
            held.mode = mode
        if held is None or not held.changed:
            self.objects[key].mode = mode

    # -- names ------------------------------------------------------------------------

    def require_free(self, path: str) -> None:
        self.require_parent(path)
        if path.endswith(SHADOW):
            raise Exists if self.is_shadow(path) else Invalid
        if self.exists(path):
            raise Exists

    def exists_file(self, path: str) -> bool:
        key = path.removesuffix(SHADOW)
        return key in self.objects or key in self.fresh

    def mkdir(self, path: str) -> None:
        self.require_free(path)
        self.objects[path + "/"] = Body()

    def link(self, path: str, new: str) -> None:
        key = self.key_of(path)
        self.require_parent(new)
        if key in self.fresh:
            self.commit(self.fresh[key])
        self.require_free(new)
        self.objects[new] = self.objects[key]

    def unlink(self, path: str) -> None:
        self.take_away(self.key_of(path))
        self.keep(path)

    def take_away(self, key: str) -> None:
        gone = [self.fresh.pop(key, None)]
        body = self.objects.pop(key, None)
        if body is not None and body not in self.objects.values():
            gone += [held for held in self.held if held.body is body and held.version == body.version]
        for held in gone:
            if held is not None:
                held.unlinked = True

    def keep(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if parent and not self.is_directory(parent):
            self.kept.add(parent + "/")

    def rmdir(self, path: str) -> None:
        self.require_parent(path)
        if not self.is_directory(path):
            raise NotADirectory if self.exists(path) or self.is_shadow(path) else NoEntry
        self.require_empty(path)
        self.objects.pop(path + "/", None)
        self.kept.discard(path + "/")
        self.keep(path)

    def require_empty(self, path: str) -> None:
        if any(key.startswith(path + "/") and key != path + "/" for key in {*self.objects, *self.fresh, *self.kept}):
            raise NotEmpty

    def rename(self, path: str, new: str, *, replace: bool = True) -> None:
        self.require_parent(path)
        self.require_parent(new)
        if self.is_directory(path):
            self.rename_directory(path, new, replace=replace)
        else:
            self.rename_file(path, new, replace=replace)
        self.keep(path)

    def rename_file(self, path: str, new: str, *, replace: bool) -> None:
        key = self.key_of(path)
        if key in self.fresh:
            self.commit(self.fresh[key])
        if self.is_directory(new):
            raise IsADirectory
        target = new.removesuffix(SHADOW)
        present = self.exists_file(new) if target == new else self.is_shadow(new)
        if present and not replace:
            raise Exists
        if not present:
            self.require_free(new)
        if key == target or (self.objects[key] is self.objects.get(target) and target not in self.fresh):
            return
        self.take_away(target)
        self.objects[target] = self.objects.pop(key)
        for held in self.held:
            if held.body is self.objects[target] and self.is_current(held) and held.key == key:
                held.key = target

    def rename_directory(self, path: str, new: str, *, replace: bool) -> None:
        if (new + "/").startswith(path + "/") and new != path:
            raise Invalid
        if not self.is_directory(new):
            if self.exists(new) or self.is_shadow(new):
                raise NotADirectory
            self.require_free(new)
        elif not replace:
            raise Exists
        if path == new:
            return
        if self.is_directory(new):
            self.require_empty(new)
            if any(key.startswith(path + "/") for key in self.objects):
                self.objects.pop(new + "/", None)
            self.kept.discard(new + "/")
        for held in self.held:
            if held.key.startswith(path + "/") and (held.key in self.fresh or self.is_current(held)):
                held.key = new + held.key[len(path) :]
        self.objects = {moved(key, path, new): body for key, body in self.objects.items()}
        self.fresh = {moved(key, path, new): held for key, held in self.fresh.items()}
        self.kept = {moved(key, path, new) for key in self.kept}

    # -- another client ---------------------------------------------------------------

    def put(self, key: str, data: bytes) -> None:
        self.objects[key] = Body(data)
        self.settle()

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)
        self.settle()

    def move(self, key: str, new: str) -> None:
        if key in self.objects and self.objects[key] is not self.objects.get(new):
            self.objects[new] = self.objects.pop(key)
        self.settle()

    def settle(self) -> None:
        """Open files are called what the bucket calls them; one that has no key any more keeps the last."""
        for held in self.held:
            keys = [key for key, body in self.objects.items() if body is held.body]
            if held.version is not None and keys and held.key not in keys:
                held.key = keys[0]


def moved(key: str, path: str, new: str) -> str:
    return new + key[len(path) :] if key.startswith(path + "/") else key
