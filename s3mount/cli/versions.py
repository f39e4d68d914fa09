"""`s3mount versions`: what a bucket has kept of objects.

Owns: its options and what it prints.
Must not know: how versions are listed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import click
import trio

from s3mount.cli.open_store import Stores
from s3mount.cli.output import human_option, json_option, print_json, shown, size_text, time_json, time_text
from s3mount.cli.places import as_prefix, parse_bucket_url, with_key
from s3mount.cli.store_options import Choice, store_options
from s3mount.config import StoreUrl
from s3mount.errors import NotFound
from s3mount.model import Version, VersionPlace
from s3mount.store.api import ObjectStore


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@human_option
@store_options
@json_option
def versions(urls: tuple[str, ...], human: bool, choice: Choice, as_json: bool) -> None:
    """List the versions of objects, the newest first.

    A URL names an object or, where there is none of that name, all that lies below it. Prints time, size, version id and key; `*` stands
    before the version that one reads now, and `deleted` instead of a size where somebody removed the object. A bucket that keeps no
    versions has the current one alone, named null.
    """
    parsed = [parse_bucket_url(url) for url in urls]

    async def show() -> None:
        async with Stores(choice) as stores:
            for url in parsed:
                async with aclosing(_named(await stores.open(url), url)) as found:
                    async for version in found:
                        if as_json:
                            print_json(version_json(version, url))
                        else:
                            click.echo(_line(version, human=human))

    trio.run(show)


async def _named(store: ObjectStore, url: StoreUrl) -> AsyncGenerator[Version, None]:
    """The versions that *url* means. Raises NotFound for none."""
    there = False
    if url.key and not url.key.endswith("/"):
        async with aclosing(all_versions(store, url.key)) as found:
            async for version in found:
                # Of all keys that begin with another, that other one is listed first.
                if version.key != url.key:
                    break
                there = True
                yield version
    if there:
        return
    async with aclosing(all_versions(store, as_prefix(url.key))) as found:
        async for version in found:
            there = True
            yield version
    if url.key and not there:
        raise NotFound(f"There is nothing at {url}, and no version of it.")


async def all_versions(store: ObjectStore, prefix: str) -> AsyncGenerator[Version, None]:
    """Every version and delete marker of the keys that begin with *prefix*."""
    after: VersionPlace | None = None
    while True:
        page = await store.list_versions(prefix, after=after)
        for version in page.entries:
            yield version
        if (after := page.next) is None:
            return


def version_json(version: Version, url: StoreUrl) -> dict[str, Any]:
    """Everything known about a version."""
    record = {
        "kind": "delete-marker" if version.marker else "version",
        "url": str(with_key(url, version.key)),
        "key": version.key,
        "version_id": version.version_id,
        "latest": version.latest,
        "modified": time_json(version.mtime_ns),
    }
    if version.marker:
        return record
    return record | {"size": version.size, "etag": version.etag, "storage_class": version.storage_class}


def _line(version: Version, *, human: bool) -> str:
    size = "deleted" if version.marker else size_text(version.size, human=human)
    mark = "*" if version.latest else " "
    return f"{mark} {time_text(version.mtime_ns)}  {size:>12}  {version.version_id:<32}  {shown(version.key)}"
