"""A mount's speed next to the bare directory's and to pyfuse3's passthrough example: a table, no verdict.

Owns: rounds, medians, ratios, the table.
Must not know: how a contender works. Nothing is asserted: figures differ between machines, ratios within a row hold.

BENCH_SCALE (default 1) scales files and sizes, BENCH_ROUNDS (default 3) says how often each line is measured; the median counts.
BENCH_FOLDER chooses the disk (default: the folder for temporary files).
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tests.bench.contenders import Contender, Mounted, Passthrough, Plain, passthrough_program
from tests.bench.loads import LOADS, Load, Material, prepare
from tests.leftovers import own_folders

TITLE_COLUMNS = 40
Rates = dict[tuple[str, str], list[float]]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def measure(load: Load, contender: Contender, material: Material, seed: str) -> float:
    """How much of its unit *load* does in a second."""
    if load.change:
        load.change(material, seed)
    if load.fresh:
        contender.fresh()
    began = time.perf_counter()
    amount = load.run(contender.directory, material)
    return amount / (time.perf_counter() - began)


def clear(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def play(contender: Contender, material: Material, rates: Rates, number: int) -> None:
    """Round *number* of every load. A contender that fails one is mounted anew and goes on with the next."""
    for load in LOADS:
        try:
            rates[load.title, contender.name].append(measure(load, contender, material, f"{number} {contender.name} {load.title}"))
        except (OSError, subprocess.SubprocessError) as error:
            say(f"  {contender.name}: '{load.title}' failed: {error}")
            contender.fresh()
    clear(contender.directory)


def cell(rates: list[float]) -> str:
    return f"{statistics.median(rates):,.0f}" if rates else "-"


def ratio(ours: list[float], theirs: list[float]) -> str:
    return f"{statistics.median(ours) / statistics.median(theirs):.2f}" if ours and theirs else "-"


def table(rates: Rates) -> str:
    lines = [f"{'':<{TITLE_COLUMNS}}{'unit':<9}{'directory':>11}{'passthrough':>13}{'s3mount':>10}{'/directory':>12}{'/passthrough':>14}"]
    for load in LOADS:
        plain, through, ours = (rates[load.title, name] for name in (Plain.name, Passthrough.name, Mounted.name))
        cells = f"{cell(plain):>11}{cell(through):>13}{cell(ours):>10}{ratio(ours, plain):>12}{ratio(ours, through):>14}"
        lines.append(f"{load.title:<{TITLE_COLUMNS}}{load.unit:<9}{cells}")
    return "\n".join(lines)


def contenders(folder: Path) -> list[Contender]:
    program = passthrough_program()
    if program is None:
        say("pyfuse3's source archive cannot be had here: measured without its passthrough example.")
    return [Plain(folder), *([Passthrough(folder, program)] if program else []), Mounted(folder)]


def main() -> None:
    scale, rounds = float(os.environ.get("BENCH_SCALE", "1")), int(os.environ.get("BENCH_ROUNDS", "3"))
    folder = Path(tempfile.mkdtemp(prefix="s3mount-bench-", dir=os.environ.get("BENCH_FOLDER")))
    os.environ.update(own_folders(folder))
    rates: Rates = defaultdict(list)
    field: list[Contender] = []
    try:
        material = prepare(folder / "material", scale)
        field = contenders(folder)
        for contender in field:
            contender.start()
        for number in range(rounds):
            for contender in field:
                play(contender, material, rates, number)
    finally:
        for contender in field:
            contender.stop()
        shutil.rmtree(folder, ignore_errors=True)
    say(f"scale {scale:g}, median of {rounds}; {'root' if os.geteuid() == 0 else 'an ordinary user'}; more is better, ratios are s3mount's")
    say(table(rates))


if __name__ == "__main__":
    main()
