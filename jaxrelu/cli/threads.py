"""Threads of a run of the command: one for LAPACK, and one that imports ahead."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def one_lapack_thread() -> Iterator[None]:
    """Factorisations by one thread, unless the environment says how many.

    XLA and LAPACK each bring a pool of threads that wait for each other. On two cores with other
    work a factor of 432 unknowns was seen to take 500 ms, where one thread takes 1.
    """
    if "OPENBLAS_NUM_THREADS" in os.environ:
        yield
        return
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:  # installed otherwise than by the extra: slower, not wrong
        yield
        return
    with threadpool_limits(limits=1, user_api="blas"):
        yield


def import_ahead(*modules: str) -> threading.Thread:
    """Imports modules in a thread, while the compiled code of a solve leaves Python idle."""

    def load() -> None:
        with suppress(Exception):  # whoever needs them will say so
            for module in modules:
                importlib.import_module(module)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    return thread
