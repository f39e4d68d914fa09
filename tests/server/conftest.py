"""One server for the tests of a module, with authentication off, and a bucket of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.server.serving import Server, served

NUMBERS = count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def bucket(server: Server) -> str:
    name = f"bucket-{next(NUMBERS)}"
    assert server.request("PUT", f"/{name}").status == 200
    return name
