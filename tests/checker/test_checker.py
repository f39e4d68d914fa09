"""Random lives of files on real mounts, compared with a directory of the disk after each operation, byte for byte.

CHECKER_SEED and CHECKER_OPERATIONS repeat one; CHECKER_SHORTEN=1 then looks for the shortest part of it that fails.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from s3mount.model import MiB
from tests.checker.lockstep import Difference, Lockstep, shortened
from tests.checker.operations import LARGE, Operation, Scope, plan
from tests.fuse.mounting import Mount
from tests.fuse.remote import bucket_name, remote_mount
from tests.s3.services import Service, ours

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

EMBEDDED = Scope(remounts=250)
REMOTE = Scope(remounts=250, links=False)
SHORTENING_TRIES = 400
# A soak takes as long as its operations; each has a new seed.
SOAK_LIVES = 8
SOAK_OPERATIONS = 4000


def operations(default: int) -> int:
    return int(os.environ.get("CHECKER_OPERATIONS", default))


def seeds(*default: int) -> Sequence[int]:
    given = os.environ.get("CHECKER_SEED")
    return default if given is None else [int(given)]


def fresh_seed() -> int:
    return seeds(random.SystemRandom().randrange(1 << 30))[0]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with ours(tmp_path_factory.mktemp("served")) as service:
        yield service


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Mount]:
    with Mount(tmp_path / "embedded").running() as mount:
        yield mount


@pytest.fixture
def remote(service: Service, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """A bucket of its own, mounted with the caches that one gets by default."""
    with remote_mount(tmp_path / "remote", service.url, bucket_name(request)) as mount:
        yield mount


@pytest.fixture
def late(service: Service, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """As `remote`, written back."""
    with remote_mount(tmp_path / "remote", service.url, bucket_name(request), "--write-back") as mount:
        yield mount


@pytest.fixture(autouse=True)
def removable(tmp_path: Path) -> Iterator[None]:
    """The lives leave directories behind that an ordinary user may not enter, though they are theirs."""
    yield
    for folder, directories, _ in os.walk(tmp_path / "disk"):
        for name in directories:
            os.chmod(os.path.join(folder, name), 0o700)


def check(mount: Mount, tmp_path: Path, seed: int, count: int, scope: Scope) -> Lockstep:
    """One life, in a directory of its own on either side."""
    folders = itertools.count()

    def live(part: Sequence[Operation]) -> Lockstep:
        name = f"seed {seed} {next(folders)}"
        sides = [tmp_path / "disk" / name, mount.path / name]
        for side in sides:
            side.mkdir(parents=True)
        life = Lockstep(sides[0], sides[1], mount.again)
        life.run(part, title=f"CHECKER_SEED={seed} CHECKER_OPERATIONS={count}")
        return life

    whole = plan(seed, count, scope)
    try:
        return live(whole)
    except Difference:
        if "CHECKER_SHORTEN" not in os.environ:
            raise
        live(shortened(whole, lambda part: differs(live, part), tries=SHORTENING_TRIES))
        raise


def differs(live: Callable[[Sequence[Operation]], object], part: Sequence[Operation]) -> bool:
    try:
        live(part)
    except Difference:
        return True
    return False


# -- what `make test` runs --------------------------------------------------------------------


@pytest.mark.parametrize("seed", seeds(1, 2))
def test_a_life_on_the_embedded_store_is_that_on_a_disk(embedded: Mount, tmp_path: Path, seed: int) -> None:
    check(embedded, tmp_path, seed, operations(700), EMBEDDED)


@pytest.mark.parametrize("seed", seeds(1, 2))
def test_a_life_on_s3_is_that_on_a_disk(remote: Mount, tmp_path: Path, seed: int) -> None:
    life = check(remote, tmp_path, seed, operations(700), REMOTE)
    assert life.done["done"] > life.done["refused"], "most of it was refused, which proves little"


@pytest.mark.parametrize("seed", seeds(3))
def test_a_life_on_s3_with_write_back_is_that_on_a_disk(late: Mount, tmp_path: Path, seed: int) -> None:
    check(late, tmp_path, seed, operations(700), REMOTE)


@pytest.mark.parametrize("seed", seeds(1))
def test_a_life_of_large_files_on_s3_is_that_on_a_disk(remote: Mount, tmp_path: Path, seed: int) -> None:
    check(remote, tmp_path, seed, operations(200), LARGE)


def test_many_lives_at_once_on_s3_are_those_on_a_disk(remote: Mount, tmp_path: Path) -> None:
    """Each in a directory of its own: what is one's must not touch another's. No remounts, as they would come to all."""
    scope = replace(REMOTE, remounts=0)
    with ThreadPoolExecutor(6) as pool:
        lives = [pool.submit(check, remote, tmp_path, seed, operations(150), scope) for seed in range(100, 106)]
        for life in lives:
            life.result()


# -- what `make soak` runs --------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("life", range(SOAK_LIVES))
def test_long_lives_on_the_embedded_store_are_those_on_a_disk(embedded: Mount, tmp_path: Path, life: int) -> None:
    check(embedded, tmp_path, fresh_seed(), operations(SOAK_OPERATIONS), EMBEDDED)


@pytest.mark.soak
@pytest.mark.parametrize("life", range(SOAK_LIVES))
def test_long_lives_on_s3_are_those_on_a_disk(remote: Mount, tmp_path: Path, life: int) -> None:
    check(remote, tmp_path, fresh_seed(), operations(SOAK_OPERATIONS), REMOTE)


@pytest.mark.soak
@pytest.mark.parametrize("life", range(SOAK_LIVES))
def test_long_lives_of_large_files_on_s3_are_those_on_a_disk(remote: Mount, tmp_path: Path, life: int) -> None:
    check(remote, tmp_path, fresh_seed(), operations(SOAK_OPERATIONS // 4), replace(LARGE, reach=64 * MiB))


@pytest.mark.soak
@pytest.mark.parametrize("life", range(SOAK_LIVES))
def test_long_lives_on_s3_with_write_back_are_those_on_a_disk(late: Mount, tmp_path: Path, life: int) -> None:
    check(late, tmp_path, fresh_seed(), operations(SOAK_OPERATIONS), REMOTE)
