"""The README's table of operations is whole, by the list of an SDK, and true where it says that something is not implemented."""

from __future__ import annotations

import re
from pathlib import Path

import botocore.session
import pytest

from tests.server_api.serving import Served

# A real server, real sockets: for `make test`.
pytestmark = pytest.mark.slow

SECTION = (Path(__file__).parents[2] / "README.md").read_text().partition("### Operations and headers")[2].partition("| Headers")[0]
MODEL = botocore.session.get_session().get_service_model("s3")
# They are other services' operations: the first has a host of its own, the second is Lambda's.
ELSEWHERE = {"ListDirectoryBuckets", "WriteGetObjectResponse"}


def named(*, refused: bool) -> set[str]:
    rows = [row for row in SECTION.splitlines() if row.startswith("| ") and row.startswith("| Not implemented") is refused]
    return {word for row in rows for word in re.findall(r"[A-Za-z0-9]+", row.split("|")[2]) if word in MODEL.operation_names}


def test_every_operation_is_in_the_table_once() -> None:
    assert named(refused=True) | named(refused=False) == set(MODEL.operation_names)
    assert not named(refused=True) & named(refused=False)


@pytest.mark.parametrize("name", sorted(named(refused=True) - ELSEWHERE))
def test_what_is_not_implemented_says_so_and_does_nothing(open_server_of_module: Served, name: str) -> None:
    http = MODEL.operation_model(name).http
    target = http["requestUri"].replace("{Bucket}", "box").replace("{Key+}", "key")
    status, _, body = open_server_of_module.ask(http["method"], target, b"<x/>" if http["method"] in ("PUT", "POST") else None)
    assert (status, b"<Code>NotImplemented</Code>" in body) == (501, True)
    assert open_server_of_module.ask("GET", "/box/key")[2] == b"as it was"
