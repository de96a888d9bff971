"""JAX's persistent compilation cache, set up so that a second process compiles nothing.

A path compiles some sixty programs; most of them take less than the second from which on JAX keeps
one by default. Compiled code is of one processor: a home that two machines share has a folder for
each, and for each version of jaxlib.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxrelu.core.checks import described
from jaxrelu.core.tracing import on_host

_LARGEST = 2**29  # bytes; a path keeps some three million


@on_host()
def enable_compilation_cache(dir: str | os.PathLike[str] | None = None) -> Path:
    """Keeps compiled programs between processes, in a folder on the disk.

    JAX then looks there for every program before it compiles it. Processes may share the folder;
    beyond 512 MiB what was not used for the longest time is removed. It is off unless this is
    called, and by `jax.config.update("jax_enable_compilation_cache", False)` again.

    Args:
        dir: where to keep them; the cache folder of the user by default. Inside it there is a
            folder for every version of jaxlib and kind of processor.

    Returns:
        The folder in use.

    Raises:
        ImportError: the package filelock is missing, or platformdirs where `dir` is None.
        ValueError: the folder cannot be written to.
        TypeError: `dir` is no path; called with a traced one.

    Example:
        >>> import tempfile, jaxrelu as jr
        >>> folder = jr.enable_compilation_cache(tempfile.mkdtemp())
        >>> folder.is_dir()
        True
    """
    if dir is not None and not isinstance(dir, str | os.PathLike):
        raise TypeError(f"dir is {described(dir)}; pass the path of a folder, or None.")
    needed = ["filelock"] if dir is not None else ["filelock", "platformdirs"]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"the compilation cache needs {' and '.join(missing)}: pip install 'jaxrelu[cache]'"
        )
    folder = (_users_folder() if dir is None else Path(dir)) / _compiled_for()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"room")
    except OSError as error:
        raise ValueError(
            f"dir is {folder}, which cannot be written to ({error.strerror or error}): pass a "
            "folder that you may write to."
        ) from error
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_compilation_cache_max_size", _LARGEST)
    # Where something was compiled before, JAX has already decided to do without.
    compilation_cache.reset_cache()
    return folder


def _users_folder() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("jaxrelu")


def _compiled_for() -> str:
    """A name for what compiled code belongs to: a version of jaxlib and a kind of processor."""
    known = _processor()
    kinds = ("model name", "flags", "Features", "CPU part")
    lines = sorted({line for line in known if line.startswith(kinds)}) or known
    text = "\n".join([platform.system(), platform.machine(), *lines])
    return f"jaxlib-{version('jaxlib')}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _processor() -> list[str]:
    """Lines that describe the processor: what the system knows of its features, or its name."""
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return [platform.processor()]
