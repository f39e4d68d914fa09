"""`s3mount ls`, `stat` and `du`.

Owns: their options and what they print.
Must not know: how keys are gone through.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import click
import trio

from s3mount.cli.open_store import Bucket, Stores
from s3mount.cli.output import (
    human_option,
    json_option,
    object_json,
    print_json,
    progress_bar,
    shown,
    size_text,
    time_json,
    time_text,
)
from s3mount.cli.places import as_prefix, object_at, parse_bucket_url, plain_name, with_key
from s3mount.cli.store_options import Choice, store_options
from s3mount.cli.walk import pages
from s3mount.config import StoreUrl, parse_url
from s3mount.errors import NotFound
from s3mount.model import Found, ObjectInfo
from s3mount.store.api import ObjectStore

EVERY_BUCKET = "local://"


@dataclass(frozen=True, slots=True)
class Form:
    """How ls prints."""

    long: bool
    human: bool
    as_json: bool

    def object(self, info: ObjectInfo, url: StoreUrl, name: str) -> None:
        if self.as_json:
            print_json(object_json(info, str(with_key(url, info.key))))
        else:
            self._line(size_text(info.size, human=self.human), time_text(info.mtime_ns), name)

    def prefix(self, prefix: str, url: StoreUrl, name: str) -> None:
        if self.as_json:
            print_json({"kind": "prefix", "url": str(with_key(url, prefix)), "prefix": prefix})
        else:
            self._line("-", "", name)

    def bucket(self, url: StoreUrl, bucket: Bucket) -> None:
        name, created_ns = bucket.name, bucket.created_ns
        if self.as_json:
            print_json({"kind": "bucket", "url": f"{url.scheme}://{name}", "bucket": name, "created": time_json(created_ns)})
        else:
            click.echo(f"{time_text(created_ns)}  {name}" if self.long else name)

    def _line(self, size: str, time: str, name: str) -> None:
        click.echo(f"{size:>12}  {time:19}  {shown(name)}" if self.long else shown(name))


@click.command()
@click.argument("urls", metavar="[URL]...", nargs=-1)
@click.option("-l", "--long", is_flag=True, help="Print sizes in bytes and times too.")
@click.option("-r", "--recursive", is_flag=True, help="List all keys below the URL rather than one level.")
@human_option
@store_options
@json_option
def ls(urls: tuple[str, ...], long: bool, recursive: bool, human: bool, choice: Choice, as_json: bool) -> None:
    """List buckets, or what lies under a URL.

    Without a URL, all buckets of the embedded store; s3:// names those of a service. What lies deeper is shown as one name that ends in /.
    """
    parsed = [parse_url(url) for url in urls or (EVERY_BUCKET,)]
    form = Form(long, human, as_json)

    async def show() -> None:
        async with Stores(choice) as stores:
            for url in parsed:
                if url.bucket:
                    await _list_url(await stores.open(url), url, form, recursive=recursive)
                else:
                    for bucket in await stores.buckets(url):
                        form.bucket(url, bucket)

    trio.run(show)


async def _list_url(store: ObjectStore, url: StoreUrl, form: Form, *, recursive: bool) -> None:
    found = await find_something(store, url)
    if (info := object_at(url, found)) is not None:
        form.object(await store.head(info.key), url, url.key)
    if found.is_directory:
        await _list_below(store, url, form, recursive=recursive)


async def _list_below(store: ObjectStore, url: StoreUrl, form: Form, *, recursive: bool) -> None:
    prefix = as_prefix(url.key)
    async with aclosing(pages(store, prefix, delimiter="" if recursive else "/")) as listing:
        async for page in listing:
            entries = [(prefix_found, None) for prefix_found in page.prefixes] + [(str(info.key), info) for info in page.objects]
            for key, info in sorted(entries, key=lambda entry: entry[0].encode()):
                name = key.removeprefix(prefix) or "./"
                if info is None:
                    form.prefix(key, url, name)
                else:
                    form.object(info, url, name)


async def find_something(store: ObjectStore, url: StoreUrl) -> Found:
    """What stands at *url*; raises NotFound where that is nothing. The bucket itself always is something."""
    found = await store.find(plain_name(url))
    if url.key and not found.is_directory and object_at(url, found) is None:
        raise NotFound(f"There is nothing at {url}.")
    return found


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@store_options
@json_option
def stat(urls: tuple[str, ...], choice: Choice, as_json: bool) -> None:
    """Show everything known about objects but their bytes."""
    parsed = [parse_bucket_url(url) for url in urls]

    async def show() -> None:
        async with Stores(choice) as stores:
            for url in parsed:
                record = await _describe(await stores.open(url), url)
                if as_json:
                    print_json(record)
                else:
                    _print_record(record)

    trio.run(show)


async def _describe(store: ObjectStore, url: StoreUrl) -> dict[str, Any]:
    found = await find_something(store, url)
    if (info := object_at(url, found)) is not None:
        return object_json(await store.head(info.key), str(url))
    kind = "prefix" if url.key else "bucket"
    record: dict[str, Any] = {"kind": kind, "url": str(url), "prefix": as_prefix(url.key), "marker": found.marker is not None}
    if found.marker is not None:
        record |= {"modified": time_json(found.marker.mtime_ns), "metadata": dict(found.marker.metadata or {})}
    return record


def _print_record(record: dict[str, Any]) -> None:
    for name, value in record.items():
        if isinstance(value, dict):
            for inner, text in sorted(value.items()):
                click.echo(f"{'metadata':>13}: {shown(inner)} = {shown(text)}")
        elif value is not None:
            click.echo(f"{name.replace('_', ' '):>13}: {shown(str(value))}")


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@human_option
@store_options
@json_option
def du(urls: tuple[str, ...], human: bool, choice: Choice, as_json: bool) -> None:
    """Add up the sizes of what lies under a URL.

    Prints bytes, number of objects and the URL. Bytes are those a reader gets; the embedded store keeps equal ones once.
    """
    parsed = [parse_bucket_url(url) for url in urls]

    async def show() -> None:
        async with Stores(choice) as stores:
            for url in parsed:
                size, count = await _add_up(await stores.open(url), url)
                if as_json:
                    print_json({"kind": "sum", "url": str(url), "size": size, "objects": count})
                else:
                    click.echo(f"{size_text(size, human=human)}\t{count}\t{shown(str(url))}")

    trio.run(show)


async def _add_up(store: ObjectStore, url: StoreUrl) -> tuple[int, int]:
    found = await find_something(store, url)
    size = count = 0
    if (info := object_at(url, found)) is not None:
        size, count = info.size, 1
    if found.is_directory:
        with progress_bar(f"Adding up {url}", None) as progress:
            async with aclosing(pages(store, as_prefix(url.key))) as listing:
                async for page in listing:
                    size, count = size + sum(info.size for info in page.objects), count + len(page.objects)
                    progress(len(page.objects))
    return size, count
