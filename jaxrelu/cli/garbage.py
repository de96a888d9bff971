"""Python's garbage collector during a run of the command."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Of Python's own: 700 (2,000 from 3.12 on), 10, 10.
_SELDOM = (50_000, 20, 100)


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Few passes while it lasts, and none at the end of the process.

    Tracing makes millions of small objects that stay: passes through all of them take a sixth of a
    run whose programs are kept, and the last one, at the exit, half a second.
    """
    before = gc.get_threshold()
    gc.set_threshold(*_SELDOM)
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        gc.set_threshold(*before)
