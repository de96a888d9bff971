"""How the package has its functions compiled.

The first call of a function is mostly XLA's time. On a CPU XLA generates the code of every fusion
by way of MLIR by default; its older generator, chosen by a flag, takes three fifths of the time and
its code is as fast. Without optimisation by LLVM it takes a fifth, with code that is several times
slower: good for what runs a few times and does little.

Options of the compiler belong to the outermost compiled function. Within a user's own `jit`, `grad`
or `vmap` the user's options hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import jax

from jaxrelu.core.tracing import is_staged, is_traced

_GENERATOR = "xla_cpu_use_fusion_emitters"
_LEVEL = "xla_backend_optimization_level"


def compiled(
    function: Callable[..., Any],
    *,
    donate: tuple[int, ...] = (),
    out_shardings: Any = None,
    optimised: bool = True,
) -> Callable[..., Any]:
    """`jax.jit` with the package's options, and the classes of losses in its key.

    A loss that is registered by JAX's own functions would otherwise be taken for another one (see
    `jaxrelu.core.pytrees.register`).

    Args:
        function: takes losses, or what has a `loss`, as positional arguments, beside others.
        donate: positions of arguments that are given up.
        out_shardings: as in `jax.jit`.
        optimised: False for what does little work: its code is slower, and there sooner.

    Returns:
        The compiled function, with JAX's ``lower``.

    Example:
        >>> import jax, jaxrelu as jr
        >>> from jaxrelu.core.compilation import compiled
        >>> @compiled
        ... def slope(loss, fit, target):
        ...     return loss.gradient(fit, target)
        >>> slope(jr.SquaredLoss(), jax.numpy.ones(1), jax.numpy.zeros(1)).tolist()
        [1.0]
    """
    jitted = _jitted(function, donate, out_shardings, optimised)

    @wraps(function)
    def run(*args: Any) -> Any:
        outermost = not (is_traced(args) or is_staged())
        return jitted(outermost)(_loss_classes(args), *args)

    run.lower = lambda *args: jitted(True).lower(_loss_classes(args), *args)  # type: ignore[attr-defined]
    return run


def driven(
    function: Callable[..., Any], *, donate: tuple[int, ...] = (), optimised: bool = True
) -> Callable[..., Any]:
    """`compiled` for a driver on the host: called outside of traces, with known values alone.

    Args:
        function: as in `compiled`.
        donate: as in `compiled`.
        optimised: as in `compiled`.

    Returns:
        The compiled function, with JAX's ``lower``.
    """
    jitted = _jitted(function, donate, None, optimised)

    @wraps(function)
    def run(*args: Any) -> Any:
        return jitted(True)(_loss_classes(args), *args)

    run.lower = lambda *args: jitted(True).lower(_loss_classes(args), *args)  # type: ignore[attr-defined]
    return run


def _jitted(
    function: Callable[..., Any], donate: tuple[int, ...], out_shardings: Any, optimised: bool
) -> Callable[[bool], Any]:
    """Whether it is the outermost one -> the function, the classes of losses before the rest."""

    @wraps(function)  # its name is what profiles and logs of compilations show
    def keyed(losses: tuple[type, ...], *args: Any) -> Any:
        del losses
        return function(*args)

    del keyed.__wrapped__  # jit would read the arguments' names there
    options: dict[str, Any] = {"donate_argnums": tuple(1 + i for i in donate)}
    if out_shardings is not None:
        options["out_shardings"] = out_shardings

    @cache  # made at the first call: an import does not look for devices
    def made(outermost: bool) -> Any:
        chosen = compiler_options(optimised) if outermost else None
        return jax.jit(keyed, static_argnums=0, compiler_options=chosen, **options)

    return made


@cache
def compiler_options(optimised: bool) -> dict[str, Any] | None:
    """What differs from XLA's defaults, as far as this XLA knows it and XLA_FLAGS says nothing."""
    if jax.default_backend() != "cpu":
        return None
    options: dict[str, Any] = {_GENERATOR: False}
    if not optimised:
        options[_LEVEL] = 0
    given = os.environ.get("XLA_FLAGS", "")
    known = {k: v for k, v in options.items() if k not in given and _is_known(k, v)}
    return known or None


@cache
def _is_known(name: str, value: Any) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value})()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _loss_classes(args: tuple[Any, ...]) -> tuple[type, ...]:
    losses = (getattr(arg, "loss", arg) for arg in args)
    # An array has a `conjugate` too.
    return tuple(type(loss) for loss in losses if hasattr(loss, "smoothness"))
