"""The recipes of the README, run as they stand there, but for the address."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import duckdb
import duckdb_extension_httpfs  # type: ignore[import-untyped]
import pandas as pd  # type: ignore[import-untyped]
import pytest

from tests.server.serving import CLONE, Server, environment, served

pytestmark = pytest.mark.slow

WRITTEN_DOWN = "http://127.0.0.1:9000"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("recipes")) as server:
        assert server.request("PUT", "/photos").status == 200
        table = tmp_path_factory.mktemp("table") / "a.parquet"
        pd.DataFrame({"a": range(10)}).to_parquet(table)
        for key in ("a.parquet", "index/a.parquet", "index/b.parquet"):
            assert server.request("PUT", f"/photos/{key}", table.read_bytes()).status == 200
        yield server


def recipe(server: Server, mark: str) -> str:
    """The recipe that begins with *mark* in the README, for this server."""
    text = (CLONE / "README.md").read_text().partition("### Recipes")[2].partition("\n## ")[0]
    found = text.partition(f"{mark}:")[2].partition("`")[2]
    code = found.partition("\n")[2].partition("```")[0] if found.startswith("``") else found.partition("`")[0]
    assert code, mark
    return code.strip().replace(WRITTEN_DOWN, server.url).replace(WRITTEN_DOWN.removeprefix("http://"), f"127.0.0.1:{server.port}")


def shell(command: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    (folder / "photos").mkdir()
    (folder / "photos" / "x.jpg").write_text("x")
    ended = subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        check=False,
        env=environment(PATH=path, RCLONE_CONFIG=os.devnull),
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_boto3(server: Server) -> None:
    scope: dict[str, Any] = {"boto3": boto3}
    exec(recipe(server, "boto3"), scope)
    assert scope["s3"].head_object(Bucket="photos", Key="a.parquet")["ContentLength"] > 0
    scope["s3"].close()


def test_awscli(server: Server, tmp_path: Path) -> None:
    assert server.request("DELETE", "/photos/x.jpg").status == 204  # rclone's, if it was first
    assert "photos/x.jpg" in shell(recipe(server, "awscli"), tmp_path)


def test_rclone(server: Server, tmp_path: Path) -> None:
    shell(recipe(server, "rclone"), tmp_path)
    assert server.request("GET", "/photos/x.jpg").body == b"x"


def test_duckdb(server: Server) -> None:
    (extension,) = Path(duckdb_extension_httpfs.__file__).parent.rglob("*.duckdb_extension")
    with duckdb.connect(config={"allow_unsigned_extensions": "true"}) as connection:
        connection.execute(f"LOAD '{extension}'")
        *before, last = [part.strip() for part in recipe(server, "DuckDB").split(";") if part.strip()]
        for statement in before:
            connection.execute(statement)
        assert connection.sql(last).fetchall() == [(20,)]
        connection.execute("COPY (SELECT range AS i FROM range(3_000_000)) TO 's3://photos/large.parquet'")
        assert connection.sql("SELECT sum(i) FROM 's3://photos/large.parquet'").fetchall() == [(4_499_998_500_000,)]


def test_pandas(server: Server, tmp_path: Path) -> None:
    code = f"import pandas as pd\nprint(len({recipe(server, 'pandas (with s3fs)')}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment(), check=False)
    assert ended.stdout.strip() == "10", ended.stderr
