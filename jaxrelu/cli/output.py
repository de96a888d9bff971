"""The files of one run in a folder: all of them, or all of the run before.

Everything is written to a temporary folder inside first, and moved when it is whole. The last file
vouches for the others: it is removed before the first of them is replaced and comes back when all
are. So a process may end at any point: where the last file is, it and the others are of one run.
A process that is killed may leave its temporary folder, .jaxrelu-..., which nothing reads.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def probe(folder: Path, names: Iterable[str]) -> None:
    """Makes the folder and writes to it, to know before the work that files can be kept.

    Raises:
        ValueError: they cannot.
    """
    with _workplace(folder) as temporary:
        for name in names:
            if (folder / name).is_dir():
                raise IsADirectoryError(f"{name} is a folder there")
            _write(temporary / name, bytes(4096))


def publish(folder: Path, files: Mapping[str, bytes | None]) -> None:
    """Replaces files of a folder by those of one run.

    Args:
        folder: the folder, see `probe`.
        files: names and contents, the file that vouches for the others last; None removes a file.

    Raises:
        ValueError: they cannot be written, all of those before are kept; or not be moved.
    """
    *others, last = files
    with _workplace(folder) as temporary:
        for name, content in files.items():
            if content is not None:
                _write(temporary / name, content)
        (folder / last).unlink(missing_ok=True)
        for name in (*others, last):
            if files[name] is None:
                (folder / name).unlink(missing_ok=True)
            else:
                os.replace(temporary / name, folder / name)


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A temporary folder inside; what fails on the way becomes a sentence."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".jaxrelu-", dir=folder, ignore_cleanup_errors=True
        ) as temporary:
            yield Path(temporary)
    except OSError as error:
        raise ValueError(
            f"{folder} cannot take the output ({error.strerror or error}): "
            "make it a folder with room that you may write to, or pass another --out."
        ) from error


def _write(path: Path, content: bytes) -> None:
    """The content on the disk: a full one may say so no sooner than at its synchronisation."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
