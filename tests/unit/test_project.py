"""What the project says of itself is true: documents, targets, versions, pins.

Owns: the comparison of README.md, Makefile, pyproject.toml, constraints.txt and the sources' own statements with each other.
Must not know: what the code does.
"""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

import s3mount

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE)) - {"setup"}
DOCUMENTED = {"demo", "test", "check", "fmt", "bench", "soak", "install", "uninstall", "clean", "help"}
# Hosts that may be named: the licence's own, the one in the name of S3's XML namespace, and what is no address of anything.
HOSTS = {"www.apache.org", "s3.amazonaws.com", "example.com", "localhost", "127.0.0.1"}


@cache
def sources() -> tuple[Path, ...]:
    """The files of the repository; in a tree without git, those that git would know."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        names = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        names = [path for folder in ("s3mount", "tests", "scripts", "systemd") for path in (ROOT / folder).rglob("*")] + list(
            ROOT.glob("*.*")
        )
    return tuple(path for path in names if path.is_file() and "__pycache__" not in path.parts)


def distribution(requirement: str) -> str:
    """The normalised name that a requirement or a pin begins with."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return {distribution(line): line for line in lines}


def test_every_target_is_listed_by_make_help_and_make_alone() -> None:
    for command in (["make", "-s", "help"], ["make", "-s"]):
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert set(re.findall(r"^make ([a-z]+) ", listed, re.MULTILINE)) == TARGETS == DOCUMENTED


def test_the_readme_names_only_targets_that_exist() -> None:
    named = set(re.findall(r"`(?:\.?sudo )?make ([a-z]+)|^\s*(?:sudo )?make ([a-z]+)", README, re.MULTILINE))
    assert {first or second for first, second in named} <= TARGETS
    assert "make demo" in README
    assert "make test" in README


def test_every_test_that_the_readme_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", README)
    assert named, "the README's semantics name the test behind each line"
    for file, test in named:
        assert (ROOT / file).is_file(), f"README names {file}"
        assert not test or f"def {test}(" in (ROOT / file).read_text(), f"README names {file}::{test}"


def test_the_repository_names_no_index_and_no_foreign_host() -> None:
    for path in sources():
        text = path.read_bytes().decode(errors="replace")
        hosts = set(re.findall(r"https?://([\w.-]+)", text))
        strange = {
            host for host in hosts - HOSTS if host.count(".") and not host.endswith((".example.com", ".example", ".localhost", ".invalid"))
        }
        assert not strange, f"{path.relative_to(ROOT)} names {sorted(strange)}"
        if path != Path(__file__):
            assert not re.search(r"--(extra-)?index-url|find-links|trusted-host", text), f"{path.relative_to(ROOT)} chooses an index"


def test_the_pins_are_names_and_versions_and_nothing_else() -> None:
    for line in pins().values():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line), line


def test_every_dependency_is_pinned_to_a_version_it_allows() -> None:
    wanted = [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["test"],
        *PROJECT["build-system"]["requires"],
    ]
    for requirement in wanted:
        name = distribution(requirement)
        assert name in pins(), f"{name} is not in constraints.txt; run scripts/pin.sh"
        least = re.search(r">=([\d.]+)", requirement)
        assert least, f"{requirement} says no least version"
        assert numbers(pins()[name].split("==")[1]) >= numbers(least[1])


def numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def test_every_dependency_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for requirement in [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["test"]]:
        line = next(line for line in text.splitlines() if f'"{requirement}"' in line)
        assert re.search(r",\s*# \w", line), f"{line.strip()} says no reason"


def test_the_version_is_the_changelogs_latest() -> None:
    latest = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert latest
    assert latest[1] == s3mount.__version__
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "s3mount.__version__"}


@pytest.mark.parametrize(("name", "target"), PROJECT["project"]["scripts"].items())
def test_every_entry_point_names_a_function_that_exists(name: str, target: str) -> None:
    module, function = target.split(":")
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def docstring(source: str) -> str:
    """That of the module: what stands between its first triple quotes, if it begins with them."""
    return source.split('"""', 2)[1] if source.startswith(('"""', 'r"""')) else ""


def test_every_module_opens_with_what_it_owns_and_must_not_know() -> None:
    for path in (path for path in sources() if path.suffix == ".py" and path.is_relative_to(ROOT / "s3mount")):
        text = docstring(path.read_text())
        if path.name not in {"__init__.py", "__main__.py"}:
            assert "Owns:" in text, f"{path.relative_to(ROOT)} does not say what it owns"
            assert "Must not know:" in text, f"{path.relative_to(ROOT)} does not say what it must not know"
        assert text, f"{path.relative_to(ROOT)} has no docstring"


def test_modules_are_short_enough_to_be_read() -> None:
    for path in (path for path in sources() if path.suffix == ".py" and path.is_relative_to(ROOT / "s3mount")):
        assert len(path.read_text().splitlines()) <= 450, f"{path.relative_to(ROOT)} is too long: split it by theme"


@pytest.mark.parametrize("script", ["scripts/setup.sh", "scripts/install.sh", "scripts/pin.sh", ".ci/run"])
def test_a_shell_script_is_executable_and_plain_sh(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    assert path.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", str(path)], check=True)
