"""Importing what a command needs, when it needs it, as quickly as that goes.

Owns: what the garbage collector does meanwhile.
Must not know: what is imported.

Modules stay until the process ends. The collector would look through all of them again and again while they are imported, and once more at
the very end: a quarter of the time that a short command takes. So it rests, and what is there afterwards it leaves alone for good.
"""

from __future__ import annotations

import gc
import importlib
import sys
from types import ModuleType


def imported(name: str) -> ModuleType:
    """The module *name*."""
    if name in sys.modules:
        return sys.modules[name]
    resting = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        if resting:
            gc.enable()
