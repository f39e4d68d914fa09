"""What a command imports is most of the time that a short one takes: each imports what it needs, once, and nothing of the others'."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from s3mount.cli.importing import imported
from tests.server.serving import environment


def modules_after(code: str) -> set[str]:
    """Which modules a fresh interpreter has after *code*."""
    said = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True, env=environment()
    )
    return set(said.stdout.split())


def test_the_overview_needs_neither_an_event_loop_nor_a_store() -> None:
    assert not {"trio", "botocore", "sqlite3"} & modules_after("import s3mount.cli.main")


@pytest.mark.slow
def test_a_command_on_a_service_does_without_the_embedded_store() -> None:
    found = modules_after("import s3mount.cli.listing, s3mount.cli.remote")
    assert "s3mount.store.s3.store" in found
    assert not {name for name in found if name.startswith("s3mount.engine.engine")}


@pytest.mark.slow
def test_a_command_on_the_embedded_store_does_without_the_client_of_services() -> None:
    assert not {"aiobotocore", "botocore", "httpx2"} & modules_after("import s3mount.cli.listing, s3mount.engine.engine")


@pytest.mark.slow
def test_the_collector_rests_while_modules_are_imported_and_leaves_them_alone() -> None:
    code = "from s3mount.cli.importing import imported; import gc; imported('s3mount.cli.listing'); assert gc.isenabled()"
    assert "s3mount.cli.listing" in modules_after(f"{code}; assert gc.get_freeze_count()")


def test_a_module_that_is_there_is_given_at_once_and_a_missing_one_leaves_the_collector_on() -> None:
    assert imported("gc") is gc
    with pytest.raises(ModuleNotFoundError):
        imported("s3mount.nowhere")
    assert gc.isenabled()
