"""`s3mount mb` and `s3mount rb`.

Owns: their options and what they print.
Must not know: how a store keeps its buckets.
"""

from __future__ import annotations

import click
import trio

from s3mount.cli.open_store import Stores
from s3mount.cli.output import json_option, print_json, progress_bar
from s3mount.cli.places import parse_bucket_url
from s3mount.cli.store_options import Choice, store_options
from s3mount.cli.walk import delete_below
from s3mount.config import StoreUrl
from s3mount.errors import BucketNotEmpty, UsageError


def parse_bucket(text: str) -> StoreUrl:
    """A URL that names a bucket and nothing in it. Raises UsageError."""
    url = parse_bucket_url(text)
    if url.key:
        raise UsageError(f"{text} names a key, not a bucket: write {url.scheme}://{url.bucket}.")
    return url


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@store_options
@json_option
def mb(urls: tuple[str, ...], choice: Choice, as_json: bool) -> None:
    """Make buckets.

    A bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens, as in S3.
    """
    buckets = [parse_bucket(url) for url in urls]

    async def make() -> None:
        async with Stores(choice, create=True) as stores:
            for bucket in buckets:
                await stores.create_bucket(bucket)
                if as_json:
                    print_json({"kind": "bucket", "bucket": bucket.bucket, "created": True})

    trio.run(make)


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Remove the objects of the bucket first.")
@store_options
@json_option
def rb(urls: tuple[str, ...], force: bool, choice: Choice, as_json: bool) -> None:
    """Remove empty buckets.

    With --force, remove what is in them too.
    """
    buckets = [parse_bucket(url) for url in urls]

    async def remove() -> None:
        async with Stores(choice) as stores:
            for bucket in buckets:
                objects = await _empty(stores, bucket) if force else 0
                await _remove(stores, bucket)
                if as_json:
                    print_json({"kind": "bucket", "bucket": bucket.bucket, "removed": True, "objects": objects})

    trio.run(remove)


async def _empty(stores: Stores, bucket: StoreUrl) -> int:
    store = await stores.open(bucket)
    with progress_bar(f"Emptying {bucket}", None) as progress:
        return await delete_below(store, "", progress)


async def _remove(stores: Stores, bucket: StoreUrl) -> None:
    try:
        await stores.delete_bucket(bucket)
    except BucketNotEmpty:
        raise BucketNotEmpty(f"The bucket {bucket.bucket!r} is not empty: `s3mount rb --force {bucket}` removes its objects too.") from None
