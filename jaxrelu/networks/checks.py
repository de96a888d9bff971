"""Networks as arguments: ReLU or gated, finite, concrete."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrelu.core.checks import as_float
from jaxrelu.networks.network import GatedNetwork, Network


def check_relu(network: Any, caller: str) -> None:
    """Refuses what is not a ReLU network.

    A `GatedNetwork` has the same fields and another function: what is said of the one does not hold
    for the other.

    Args:
        network: what was given as a `Network`.
        caller: the function that it was given to, for the message.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(network, Network):
        raise TypeError(
            f"{caller} takes a Network, not a {type(network).__name__}: pass a ReLU network, for "
            "example jr.Network(hidden, output), or jr.to_network(program, solution)."
        )


def check_values(network: Network | GatedNetwork, caller: str, **data: Any) -> None:
    """Refuses values that a function of the host cannot look at, or that are not finite.

    Every comparison with a NaN is false, so that a NaN would pass as a neuron that is not there.

    Args:
        network: a checked network.
        caller: the function that it was given to, for the message.
        data: further arrays under their names.

    Raises:
        TypeError: a traced value.
        ValueError: an entry that is not finite.
    """
    for name, given in {**vars(network), **data}.items():
        value = as_float(given, name)
        if not np.all(np.isfinite(value)):
            raise ValueError(
                f"{name} has entries that are not finite: {caller} compares numbers; find where "
                "they come from, or drop those rows or neurons."
            )
