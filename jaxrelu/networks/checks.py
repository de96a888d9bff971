"""Networks as arguments: ReLU or gated, of layers that fit, finite, concrete."""

from __future__ import annotations

from typing import Any

from jaxrelu.core.checks import check_finite, check_type
from jaxrelu.networks.network import GatedNetwork, Network, check_layers, has_bias


def check_network(
    network: Any,
    name: str = "network",
    *,
    gated: bool = False,
    skip: bool = False,
    bias: bool = False,
    outputs: bool = False,
) -> None:
    """Refuses what is no network, or has layers that do not fit each other.

    A `GatedNetwork` has the same fields and another function: what is said of the one does not hold
    for the other.

    Args:
        network: what was given as a network.
        name: the argument's name, for the message.
        gated: whether a `GatedNetwork` will do, too.
        skip: whether a network with a skip connection will do, too.
        bias: whether a network with biases or a constant will do, too.
        outputs: whether a network of several outputs will do, too.

    Raises:
        ValueError, TypeError: it is something else.
    """
    kinds = (Network, GatedNetwork) if gated else Network
    fix = (
        "a ReLU network, for example jr.Network(hidden, output) or jr.to_network(program, solution)"
    )
    check_type(network, name, kinds, fix)
    check_layers(network, name)
    if network.output.ndim > 1 and not outputs:
        raise ValueError(
            f"{name} has {network.output.shape[1]} outputs, and this function knows networks of "
            f"one: pass dataclasses.replace({name}, output={name}.output[:, k]), one of them (with "
            "skip[:, k] and constant[k], where there are such)."
        )
    if network.skip is not None and not skip:
        raise ValueError(
            f"{name} has a skip connection, of which this function knows nothing: take it out with "
            "dataclasses.replace(network, skip=None), and X @ skip from the target."
        )
    if not bias and has_bias(network):
        raise ValueError(
            f"{name} has biases or a constant, of which this function knows nothing: make the "
            "biases a row of hidden, append a column of ones to X, where they are penalised, and "
            "take the constant from the target."
        )


def check_known_network(
    network: Any,
    name: str = "network",
    *,
    gated: bool = False,
    skip: bool = False,
    bias: bool = False,
    outputs: bool = False,
) -> None:
    """Refuses networks that a function of the host cannot look at, or that are not finite.

    Every comparison with a NaN is false, so that a NaN would pass as a neuron that is not there.

    Args:
        network: what was given as a network.
        name: the argument's name, for the message.
        gated: whether a `GatedNetwork` will do, too.
        skip: whether a network with a skip connection will do, too.
        bias: whether a network with biases or a constant will do, too.
        outputs: whether a network of several outputs will do, too.

    Raises:
        ValueError, TypeError: as `check_network`; an entry that is not finite.
    """
    check_network(network, name, gated=gated, skip=skip, bias=bias, outputs=outputs)
    for layer, value in vars(network).items():
        if value is not None:
            check_finite(value, f"{name}.{layer}")
