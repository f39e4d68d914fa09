"""Imports follow the layer map of s3mount/__init__.py; a failure says which import points against it, and why that matters.

Owns: the map as data (ROOMS, STRANGERS, PURE) and the walk over the source with ast.
Must not know: what the modules do. Nothing of s3mount is imported here.

    cli -> fuse -> fs -> store.api     cache -> store.api     store.local -> engine     cli -> server -> engine
    fs, store -> held     everything -> model, config, errors

An import counts wherever it stands, inside a function and under TYPE_CHECKING as well: a name that readers meet is a thing they must know.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Rooms: the longest name that begins a module's name decides. SHARED is for all.
SHARED = ("s3mount.model", "s3mount.config", "s3mount.errors")
ROOMS: dict[str, tuple[str, ...]] = {
    "s3mount.cli": (
        "s3mount.cli",
        "s3mount.fuse",
        "s3mount.fs",
        "s3mount.cache",
        "s3mount.writeback",
        "s3mount.store",
        "s3mount.engine",
        "s3mount.server",
    ),
    "s3mount.fuse": ("s3mount.fuse", "s3mount.fs", "s3mount.store.api"),
    "s3mount.fs": ("s3mount.fs", "s3mount.held", "s3mount.store.api", "s3mount.store.aspects", "s3mount.store.wrap.base"),
    "s3mount.cache": ("s3mount.cache", "s3mount.store.api", "s3mount.store.rules", "s3mount.store.wrap"),
    "s3mount.writeback": ("s3mount.writeback", "s3mount.store.api", "s3mount.store.aspects", "s3mount.store.rules", "s3mount.store.wrap"),
    "s3mount.store": ("s3mount.store", "s3mount.held"),
    "s3mount.store.api": (),
    "s3mount.store.aspects": ("s3mount.store.api",),
    "s3mount.store.local": ("s3mount.store", "s3mount.engine"),
    "s3mount.engine": ("s3mount.engine",),
    "s3mount.server": ("s3mount.server", "s3mount.engine"),
    "s3mount.__main__": ("s3mount.cli",),
    "s3mount.__init__": (),
    "s3mount.held": (),
    "s3mount.config": (),
    "s3mount.model": (),
    "s3mount.errors": (),
}
WHY_ROOMS: dict[str, str] = {
    "s3mount.cli": "the command line starts the others",
    "s3mount.fuse": "the shell translates between the kernel and fs, and must work over any store",
    "s3mount.fs": "POSIX semantics must hold over any store and be tested without a kernel",
    "s3mount.cache": "what is remembered of a store must not depend on which store it is, nor on who asks",
    "s3mount.writeback": "what is pending must not depend on which store it is for, nor on who asks",
    "s3mount.store": "a store must not know who uses it, and only store.local knows the engine",
    "s3mount.store.api": "the protocol must not know its implementations",
    "s3mount.store.aspects": "what an object can say is the same for every store",
    "s3mount.store.local": "a store must not know who uses it",
    "s3mount.engine": "the engine serves mounts and servers alike and must not know either",
    "s3mount.server": "the server speaks HTTP over the engine, in a process of its own, and knows no mount",
}
ANYBODY = "what everybody imports must import nobody"

# Packages from outside that a room must do without.
STRANGERS: list[tuple[str, frozenset[str], str]] = [
    ("s3mount.fs", frozenset({"pyfuse3"}), "fs is tested without a kernel; translate in s3mount/fuse"),
    ("s3mount.fs", frozenset({"aiobotocore", "botocore", "boto3", "httpx2"}), "fs speaks ObjectStore; requests belong into s3mount/store"),
    ("s3mount.cache", frozenset({"pyfuse3", "aiobotocore", "botocore", "httpx2"}), "a cache is a store around any store, for any user"),
    ("s3mount.writeback", frozenset({"pyfuse3", "aiobotocore", "botocore"}), "write-back is a store around any store, for any user"),
    ("s3mount.store", frozenset({"pyfuse3"}), "a store must not know that a kernel asks"),
    ("s3mount.engine", frozenset({"trio", "anyio", "asyncio"}), "the engine is synchronous: a server on another event loop uses it too"),
    (
        "s3mount.engine",
        frozenset({"aiohttp", "httpx2", "http", "aiobotocore", "botocore", "pyfuse3", "click"}),
        "the engine knows files and SQLite only",
    ),
    ("s3mount.server", frozenset({"trio", "anyio", "pyfuse3"}), "the server process is asyncio; two event loops never share a process"),
    ("s3mount.server", frozenset({"aiobotocore", "botocore"}), "the server signs and checks by itself: clients are for its tests"),
    ("s3mount", frozenset({"boto3", "moto", "pytest", "hypothesis"}), "these come with the tests, not with an installation"),
]
# The mount process is trio throughout, and only the server has an event loop of asyncio.
ASYNCIO = frozenset({"asyncio", "aiohttp"})
WHY_NO_ASYNCIO = "the mount process is trio throughout; two event loops never share a process"

# Modules that only compute: tables in, values out. Their tests need no file, no clock and no event loop.
PURE = [
    "s3mount.model",
    "s3mount.errors",
    "s3mount.store.api",
    "s3mount.store.aspects",
    "s3mount.store.rules",
    "s3mount.store.s3.options",
    "s3mount.store.s3.answers",
    "s3mount.store.s3.headers",
    "s3mount.store.s3.parts",
    "s3mount.store.s3.made",
    "s3mount.engine.names",
    "s3mount.engine.values",
    "s3mount.engine.codec",
    "s3mount.engine.records",
    "s3mount.cache.options",
    "s3mount.cache.texts",
    "s3mount.cache.leaf",
    "s3mount.cache.spread",
    "s3mount.cache.table",
    "s3mount.cache.tables",
    "s3mount.cache.ruler",
    "s3mount.cache.splitter",
    "s3mount.cache.streams",
    "s3mount.cache.onward",
    "s3mount.cache.file_walk",
    "s3mount.writeback.records",
    "s3mount.writeback.overlay",
    "s3mount.writeback.chains",
    "s3mount.fs.options",
    "s3mount.fs.width",
    "s3mount.fs.kept",
    "s3mount.fs.names",
    "s3mount.fs.virtual",
    "s3mount.fs.attrs",
    "s3mount.fs.extents",
    "s3mount.fs.listing",
    "s3mount.fs.commit_state",
    "s3mount.cli.mount_options",
    "s3mount.server.wire",
    "s3mount.server.s3errors",
    "s3mount.server.sigv4",
    "s3mount.server.sigv2",
    "s3mount.server.access",
    "s3mount.server.post_policy",
    "s3mount.server.chunked",
    "s3mount.server.checksums",
    "s3mount.server.conditions",
    "s3mount.server.ranges",
    "s3mount.server.metadata",
    "s3mount.server.tags",
    "s3mount.server.cors",
    "s3mount.server.xml",
]
DOES_IO = frozenset(
    {"aiobotocore", "aiohttp", "asyncio", "botocore", "concurrent", "ctypes", "fcntl", "glob", "http", "httpx2", "io", "logging", "mmap"}
    | {
        "multiprocessing",
        "pyfuse3",
        "select",
        "shutil",
        "signal",
        "socket",
        "sqlite3",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "trio",
    }
)
# What os computes without asking the system.
OS_COMPUTES = frozenset({"fsencode", "fsdecode", "fspath", "PathLike", "path"})


@dataclass(frozen=True, slots=True)
class Import:
    """The module *by* imports *name*, in *line*."""

    by: str
    name: str
    line: int

    def __str__(self) -> str:
        return f"{self.by} line {self.line} imports {self.name}"


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; a package's own file is `package.__init__` at the top, else the package's name."""
    found = {}
    for path in sorted((ROOT / "s3mount").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)] = path
    return found


# Read when first asked for: whoever only collects the tests, as every worker does, reads nothing.
@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(), str(modules()[name]))


@cache
def imports_of(name: str) -> tuple[Import, ...]:
    return tuple(imports_in(name, tree_of(name), modules().keys()))


def statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Each statement of *tree*, and what holds some; expressions hold none, and are most of a tree."""
    todo: list[ast.AST] = [tree]
    while todo:
        yield (node := todo.pop())
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            below = getattr(node, field, ())
            todo += below if isinstance(below, list) else ()


def imports_in(name: str, tree: ast.Module, known: Set[str]) -> Iterator[Import]:
    for node in statements(tree):
        if isinstance(node, ast.Import):
            yield from (Import(name, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} line {node.lineno}: a relative import; name the module in full"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield Import(name, full if full in known else str(node.module), node.lineno)


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def room_of(name: str) -> str | None:
    return max((room for room in ROOMS if within(name, room)), key=len, default=None)


def against_the_map(found: Import) -> str | None:
    """Why *found* must not be; None where it may."""
    room = room_of(found.by)
    if room is None:
        return f"{found.by} stands in no room of the map; add its room to ROOMS and to s3mount/__init__.py"
    ours = within(found.name, "s3mount") and found.name != "s3mount"
    if ours and not any(within(found.name, other) for other in (*SHARED, *ROOMS[room])):
        return f"{found}: {WHY_ROOMS.get(room, ANYBODY)}"
    if found.name.split(".")[0] in ASYNCIO and not within(found.by, "s3mount.server"):
        return f"{found}: {WHY_NO_ASYNCIO}"
    for layer, packages, why in STRANGERS:
        if within(found.by, layer) and found.name.split(".")[0] in packages:
            return f"{found}: {why}"
    return None


def test_no_import_points_against_the_map() -> None:
    wrong = [why for name in modules() for why in map(against_the_map, imports_of(name)) if why]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("by", "name", "why"),
    [
        ("s3mount.fs.names", "pyfuse3", "tested without a kernel"),
        ("s3mount.fs.files", "s3mount.engine.engine", "hold over any store"),
        ("s3mount.fs.files", "s3mount.store.local", "hold over any store"),
        ("s3mount.fuse.session", "s3mount.store.memory", "work over any store"),
        ("s3mount.engine.log", "trio", "the engine is synchronous"),
        ("s3mount.engine.log", "s3mount.store.api", "must not know either"),
        ("s3mount.store.memory", "s3mount.engine.engine", "only store.local knows the engine"),
        ("s3mount.store.api", "s3mount.store.memory", "must not know its implementations"),
        ("s3mount.model", "s3mount.cli.main", "must import nobody"),
        ("s3mount.cli.main", "asyncio", "two event loops"),
        ("s3mount.fs.files", "aiohttp", "two event loops"),
        ("s3mount.server.app", "trio", "two event loops"),
        ("s3mount.server.app", "s3mount.store.local", "knows no mount"),
        ("s3mount.engine.log", "s3mount.server.wire", "must not know either"),
        ("s3mount.garage", "os", "no room"),
    ],
)
def test_an_arrow_against_the_map_is_named_with_its_reason(by: str, name: str, why: str) -> None:
    assert why in (against_the_map(Import(by, name, 1)) or "")


@pytest.mark.parametrize(
    ("by", "name"),
    [
        ("s3mount.store.local", "s3mount.engine.engine"),
        ("s3mount.fs.files", "trio"),
        ("s3mount.cli.main", "s3mount.fuse.session"),
        ("s3mount.cli.serve", "s3mount.server.app"),
        ("s3mount.server.app", "s3mount.engine.engine"),
        ("s3mount.server.app", "aiohttp"),
    ],
)
def test_an_arrow_of_the_map_is_allowed(by: str, name: str) -> None:
    assert against_the_map(Import(by, name, 1)) is None


def impurities(tree: ast.Module) -> Iterator[str]:
    """Calls of open() and uses of os that ask the system."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"open", "print", "input"}:
            yield f"line {node.lineno} calls {node.func.id}()"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os" and not computes(node.attr):
            yield f"line {node.lineno} asks the system (os.{node.attr})"


def computes(name: str) -> bool:
    """Whether os.*name* is a constant or a computation."""
    return name in OS_COMPUTES or name.isupper()


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_does_no_input_or_output(name: str) -> None:
    assert name in modules(), f"there is no {name}: mend PURE"
    wrong = [str(found) for found in imports_of(name) if found.name.split(".")[0] in DOES_IO]
    wrong += [f"{found}, which is not pure itself" for found in imports_of(name) if not is_pure(found.name)]
    wrong += [f"{name} {what}" for what in impurities(tree_of(name))]
    assert not wrong, "\na pure module only computes, so that its tests need no file, no clock and no event loop:\n" + "\n".join(wrong)


def is_pure(name: str) -> bool:
    return not within(name, "s3mount") or name in {"s3mount", *SHARED, *PURE}
