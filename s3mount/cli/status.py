"""`s3mount status`: what a mount is doing, and what it has not stored yet.

Owns: the command and what it prints; how a store of many layers is asked about itself, and to forget.
Must not know: how the answer comes (see fuse.control).

A layer of a store that has something to tell has a method `statistics() -> dict`, which neither waits nor fails; one that remembers what
it may forget has `let_go() -> int`, which forgets some of it and says how many bytes; that of a mount with --write-back has `status()`, and
`decide(verb, ids)` for what the store has refused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from s3mount.cli.output import NS_PER_S, json_option, print_json, shown, size_text, time_json, time_text
from s3mount.errors import Unavailable, UsageError
from s3mount.fuse import control
from s3mount.fuse import mountpoint as mountpoints
from s3mount.fuse.control import Answer
from s3mount.store.api import ObjectStore

# Between two looks, for a rate.
RATE_S = 0.5
# How many of the files that wait are shown one by one.
SHOWN = 10


def tell(store: ObjectStore) -> dict[str, object]:
    """What the layers of *store* say of themselves."""
    told: dict[str, object] = {}
    for layer in _layers(store):
        if hasattr(layer, "statistics"):
            told |= layer.statistics()
    if (late := _late(store)) is not None:
        told["write_back"] = late.status()
    return told


def let_go(store: ObjectStore) -> int:
    """Have the layers of *store* forget what nobody comes back to; how many bytes that gives."""
    return sum(layer.let_go() for layer in _layers(store) if hasattr(layer, "let_go"))


def errands(store: ObjectStore) -> dict[str, Answer]:
    """What one may have a mount of *store* do."""
    late = _late(store)
    if late is None:
        return {}

    async def decide(request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"decided": await late.decide(request["verb"], request["ids"])}

    return {"decide": decide}


def _layers(store: ObjectStore) -> Iterator[Any]:
    layer: Any = store
    while layer is not None:
        yield layer
        layer = getattr(layer, "inner", None)


def _late(store: ObjectStore) -> Any:
    """The layer that writes back, if there is one. Asked by what it can do: a local:// mount imports nothing of it."""
    return next((layer for layer in _layers(store) if hasattr(layer, "decide") and hasattr(layer, "status")), None)


def asked(path: Path) -> dict[str, Any]:
    """The status of the mount that *path* (resolved) lies in. Raises UsageError where there is none, Unavailable."""
    mounted = mountpoints.mount_above(path)
    place, owner = (mounted.path, mounted.owner) if mounted is not None else (path, os.getuid())
    status = control.ask(place, owner=owner, do="status")
    if status is not None:
        return status
    if mounted is None:
        raise UsageError(f"{path} is not in an s3mount file system.")
    raise Unavailable(f"The mount of {place} does not answer: its process is gone, or of an older version.")


def to_store(status: Mapping[str, Any]) -> tuple[int, int]:
    """How many files, and bytes, are on their way to the store or should be."""
    behind = status["store"].get("write_back") or {}
    return status["changed"] + behind.get("pending", 0), status["changed_bytes"] + behind.get("pending_bytes", 0)


def with_rate(path: Path) -> dict[str, Any]:
    """As `asked`; where something is being written back, looked at twice, for what goes out per second (`rate`)."""
    told = asked(path)
    behind = told["store"].get("write_back")
    if not behind or not behind["pending"]:
        return told
    time.sleep(RATE_S)
    again = asked(path)
    after = again["store"].get("write_back") or behind
    after["rate"] = (after["sent_bytes"] - behind["sent_bytes"]) / max(0.001, after["uptime_s"] - behind["uptime_s"])
    return again


@click.command()
@click.argument("mountpoint", type=click.Path(path_type=Path))
@json_option
def status(*, mountpoint: Path, as_json: bool) -> None:
    """Show what a mount is doing, and what it has not stored yet.

    MOUNTPOINT is a mount or a directory in one; also one that is just being unmounted.
    """
    told = with_rate(mountpoints.resolve(mountpoint))
    if as_json:
        print_json(_as_record(told))
        return
    for name, text in _lines(told):
        click.echo(f"{name:12} {text}")


def _as_record(told: Mapping[str, Any]) -> dict[str, Any]:
    waiting = [_one_as_record(one) for one in told["waiting"]]
    renamed = {**_renamed(told), "first": [_one_as_record(one) for one in _renamed(told)["first"]]}
    plain = ("source", "mountpoint", "pid", "ending", "read_only", "options", "open", "changed", "changed_bytes", "kept", "store")
    began = {"mounted": time_json(told["began_ns"]), "uptime_s": round((time.time_ns() - told["began_ns"]) / NS_PER_S, 3)}
    return {"kind": "status", **{name: told[name] for name in plain}, **began, "waiting": waiting, "renamed": renamed}


def _one_as_record(one: Mapping[str, Any]) -> dict[str, Any]:
    since = time_json(one["since_ns"]) if one["since_ns"] else None
    return {**{name: value for name, value in one.items() if name != "since_ns"}, "since": since, "reason": one["reason"] or None}


def _lines(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    state = "is ending" if told["ending"] else "read-only" if told["read_only"] else "read and write"
    lines = [
        ("source", f"{shown(told['source'])} on {shown(told['mountpoint'])} ({state})"),
        ("mounted", f"{time_text(told['began_ns'])}, process {told['pid']}"),
        ("files", f"{told['open']} open, {told['changed']} not stored yet ({size_text(told['changed_bytes'], human=True)}B)"),
    ]
    lines += _store_lines(told["store"])
    if told["kept"]:
        lines.append(("kept", f"{told['kept']} that could not be stored: see s3mount pending"))
    for one in told["waiting"][:SHOWN]:
        what = "sending" if one["sending"] else "waiting"
        why = f": {one['reason']} (tried {one['tries']} times)" if one["reason"] else ""
        lines.append((what, f"{shown(one['key'])}, {size_text(one['size'], human=True)}B{shown(why)}"))
    if len(told["waiting"]) > SHOWN:
        lines.append(("", f"and {len(told['waiting']) - SHOWN} more: see s3mount pending"))
    return lines + _renamed_lines(_renamed(told))


def _renamed(told: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = told.get("renamed", {"under_way": 0, "stuck": 0, "first": ()})
    return found


def _renamed_lines(renamed: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not renamed["under_way"] and not renamed["stuck"]:
        return []
    stuck = f", {renamed['stuck']} objects that it may not copy or delete: see s3mount pending" if renamed["stuck"] else ""
    lines = [("renames", f"{renamed['under_way']} keys on their way{stuck}")]
    return lines + [("stuck", f"{shown(one['reason'])} (tried {one['tries']} times)") for one in renamed["first"][:SHOWN]]


def _store_lines(store: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = []
    if behind := store.get("write_back"):
        lines.append(("write-back", _behind_text(behind)))
    if "requests" in store:
        total = sum(store["requests"].values())
        most = sorted(store["requests"].items(), key=lambda item: -item[1])[:5]
        lines.append(("requests", f"{total} ({', '.join(f'{verb} {count}' for verb, count in most)}), {store['under_way']} under way"))
        if store["failures"]:
            lines.append(("failures", ", ".join(f"{name} {count}" for name, count in sorted(store["failures"].items()))))
    lines += [("service", shown(text)) for text in store.get("lacks", ())]
    if "markers" in store:
        lines.append(("service", f"it keeps no markers of directories: they are objects {shown(store['markers'])} in them"))
    if "memory_limit" in store:
        used, limit = (size_text(store[name], human=True) for name in ("memory_used", "memory_limit"))
        lines.append(("cache", f"{used}B of {limit}B in memory"))
    return lines


def _behind_text(behind: Mapping[str, Any]) -> str:
    text = f"{behind['pending']} to send ({size_text(behind['pending_bytes'], human=True)}B)"
    if behind["oldest_ns"]:
        text += f", the oldest {max(0, time.time_ns() - behind['oldest_ns']) // NS_PER_S} s old"
    if "rate" in behind:
        text += f", {size_text(int(behind['rate']), human=True)}B/s"
    text += f"; {behind['sent']} sent ({size_text(behind['sent_bytes'], human=True)}B)"
    if behind["refused"]:
        text += f"; {behind['refused']} refused: see s3mount pending"
    if behind["error"]:
        text += f"; last failure: {shown(str(behind['error']))}"
    return text
