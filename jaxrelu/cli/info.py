"""`jaxrelu info` says what this installation computes with, and whether it computes rightly."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import jax

from jaxrelu.cli.console import console, note
from jaxrelu.core.device import device_errors
from jaxrelu.core.self_test import self_test

_PACKAGES = ("jaxrelu", "jax", "jaxlib", "numpy", "optax")
_DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class Options:
    """Shows versions and devices, and tests the arithmetic of the default device.

    Sums, products and Cholesky factors are compared with NumPy, roundings
    with what certificates allow for: at most 1 is fine.

    Exit code: 0 when all of it is fine, 1 when something is not.
    """


def run_info(options: Options) -> int:
    """Does what `jaxrelu info` promises.

    Args:
        options: there are none.

    Returns:
        0 when the device is fine, otherwise 1.
    """
    del options
    jax.config.update("jax_enable_x64", True)
    screen = console()
    screen.print(f"python   {platform.python_version()} on {platform.platform()}")
    for package in _PACKAGES:
        screen.print(f"{package:8} {_version(package)}")
    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    screen.print(f"devices  {len(devices)} x {', '.join(kinds)} ({jax.default_backend()})")
    found = {dtype: _tested(dtype) for dtype in _DTYPES}
    for dtype, errors in found.items():
        shown = ", ".join(f"{name} {error:.2g}" for name, error in errors.items())
        screen.print(f"{dtype}  {shown}")
    wrong = [
        f"{name} in {dtype}"
        for dtype, errors in found.items()
        for name, error in errors.items()
        if not error <= 1
    ]
    if wrong:
        note(f"{devices[0].device_kind} is off in {', '.join(wrong)}: no certificate holds there.")
    return 1 if wrong else 0


def _tested(dtype: str) -> dict[str, float]:
    """Errors by name, in units of what is allowed."""
    rounding = self_test(dtype)
    return {
        **device_errors(dtype),
        "roundings of sums": rounding.sums,
        "roundings of functions": rounding.functions,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
