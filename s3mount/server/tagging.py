"""Tags of objects, versions and buckets: get, put, delete.

Owns: these operations. Must not know: rules of tag sets.
"""

from __future__ import annotations

from dataclasses import replace

import msgpack

from s3mount.errors import NotFound
from s3mount.model import ObjectInfo
from s3mount.server.calls import Call, Reply, xml
from s3mount.server.demands import require_possible
from s3mount.server.ingest import receive_document
from s3mount.server.kept import pack, unpack
from s3mount.server.objects import find, missing, version_headers
from s3mount.server.s3errors import S3Error
from s3mount.server.tags import BUCKET_TAGS, Tags
from s3mount.server.xml import parse_tagging, tagging_document

SETTING = "tagging"


async def get(call: Call) -> Reply:
    require_possible(call.s3)
    info = await find(call)
    return xml(tagging_document(unpack(info.extra).tags), *version_headers(call, info))


async def put(call: Call) -> Reply:
    require_possible(call.s3)
    return Reply(200, await _set(call, parse_tagging(await receive_document(call, "Tagging"))))


async def delete(call: Call) -> Reply:
    require_possible(call.s3)
    return Reply(204, await _set(call, ()))


async def _set(call: Call, tags: Tags) -> list[tuple[str, str]]:
    def change(info: ObjectInfo) -> bytes | None:
        return pack(replace(unpack(info.extra), tags=tags))

    try:
        info = await call.run(call.engine.set_extra, call.bucket, call.key, change, version_id=call.version_id)
    except NotFound:
        raise missing(call) from None
    return version_headers(call, info)


async def get_of_bucket(call: Call) -> Reply:
    found = await call.run(call.engine.setting, call.bucket, SETTING)
    if found is None:
        raise S3Error("NoSuchTagSet", BucketName=call.bucket)
    return xml(tagging_document(msgpack.unpackb(found, use_list=False)))


async def put_of_bucket(call: Call) -> Reply:
    require_possible(call.s3)
    tags = parse_tagging(await receive_document(call, "Tagging"), BUCKET_TAGS)
    await call.run(call.engine.set_setting, call.bucket, SETTING, msgpack.packb(tags))
    return Reply(204)


async def delete_of_bucket(call: Call) -> Reply:
    require_possible(call.s3)
    await call.run(call.engine.set_setting, call.bucket, SETTING, None)
    return Reply(204)
