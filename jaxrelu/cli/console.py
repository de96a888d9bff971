"""What commands say: sentences on the standard error, tables on the standard output."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any, NoReturn

BAD_INPUT = 2


def note(sentence: str) -> None:
    """One sentence on the standard error."""
    sys.stderr.write(f"jaxrelu: {sentence}\n")


def stop(sentence: str) -> NoReturn:
    """One sentence on the standard error, then exit code 2."""
    note(sentence)
    raise SystemExit(BAD_INPUT)


def accept_any_text() -> None:
    """Escapes what the encoding of an output lacks, a name in another script say."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Sends what is still to be printed nowhere, so that it cannot fail again at the exit."""
    with suppress(OSError):  # an output that is no file does not
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console() -> Any:
    """The rich console of the standard output. Its import is here: the library does without it."""
    from rich.console import Console

    class Steady(Console):
        def on_broken_pipe(self) -> None:
            """Nobody reads on, which is no reason to end: rich would, with the exit code 1."""
            self.quiet = True
            discard_output()

    return Steady(markup=False, highlight=False, emoji=False, soft_wrap=True)
