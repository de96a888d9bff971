"""Compiled programs kept between runs of the command, where the disk allows it."""

from __future__ import annotations

import warnings
from typing import Any

import jax

from jaxrelu.cli.console import note
from jaxrelu.core.compilation_cache import enable_compilation_cache

# How the warnings of JAX begin.
_UNREADABLE = ("Error reading persistent", "Error writing persistent")


def keep_compiled_programs() -> None:
    """Switches the persistent cache on; where it does not work one line says so, nothing fails."""
    chosen = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if chosen is not None:
        return
    try:
        folder = enable_compilation_cache()
    except (ImportError, ValueError) as error:
        note(f"nothing compiled is kept for the next run: {error}")
        return
    # To the loader it is an error that the compiler's scheduling hints are no features of a CPU.
    jax.config.update("jax_logging_level", "CRITICAL")
    show, told = warnings.showwarning, False

    def show_once(message: Warning | str, *where: Any, **options: Any) -> None:
        nonlocal told
        if not str(message).startswith(_UNREADABLE):
            show(message, *where, **options)
        elif not told:
            told = True
            note(f"some compiled programs in {folder} are damaged or out of reach: remove it.")

    warnings.showwarning = show_once
