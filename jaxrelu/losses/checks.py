"""Losses, targets and sample weights as arguments."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import (
    as_float,
    check_finite,
    check_per_row,
    check_shape,
    described,
    float_array,
    known_floats,
)
from jaxrelu.core.options import number
from jaxrelu.core.tracing import is_traced, outside_traces
from jaxrelu.losses.base import Loss
from jaxrelu.losses.kinks import has_kinks
from jaxrelu.losses.squared import SquaredLoss


def chosen_loss(loss: Any) -> Loss:
    """The loss after its check, the squared one for None."""
    return SquaredLoss() if loss is None else checked_loss(loss)


def checked_loss(loss: Any) -> Loss:
    """The loss, or an error that names the fix."""
    members = ("value", "gradient", "conjugate", "check_target")
    if isinstance(loss, type) or not all(hasattr(loss, member) for member in members):
        raise TypeError(f"loss is {described(loss)}; pass an instance, such as jr.SquaredLoss().")
    if jax.tree_util.all_leaves([loss]):
        raise TypeError(
            f"loss is {described(loss)}, which JAX does not know: decorate its class with "
            "@jr.register."
        )
    checked: Loss = loss
    return checked


def check_no_kinks(loss: Loss, who: str) -> None:
    """Refuses a loss with kinks where fit and residual have to say each other."""
    if has_kinks(loss):
        raise ValueError(
            f"{who} goes by a residual that the fit says, and at a kink of "
            f"{type(loss).__name__} it does not: use a smooth loss near it, such as "
            "HuberLoss(delta) with a small delta, or SquaredHingeLoss."
        )


def check_one_output(loss: Loss) -> None:
    """Refuses a loss of several outputs where there is one; it has a member `several_outputs`."""
    if getattr(loss, "several_outputs", False):
        raise ValueError(
            f"{type(loss).__name__} is a loss of several outputs, for jr.VectorProgram and "
            "networks that have them; here there is one: use jr.LogisticLoss() with labels -1 and "
            "+1, one class against the rest."
        )


def check_target(loss: Loss, target: Any) -> None:
    """Raises what the loss raises for a target that it cannot take; a traced one has no values."""
    if not is_traced(target):
        with outside_traces():
            loss.check_target(target)


def check_weights_sign(weight: Any) -> None:
    """Refuses known sample weights below zero; NaN is let through."""
    if not is_traced(weight) and bool(np.any(np.asarray(weight) < 0)):
        raise ValueError("sample_weight has negative entries; weights are >= 0.")


def checked_samples(
    loss: Loss, fit: Array, y: Any, sample_weight: Any = None
) -> tuple[Array, Array]:
    """Targets and weights of the samples of a fit, in its dtype.

    Args:
        loss: a `Loss`.
        fit: array (n,), or (n, c) for c outputs.
        y: array of that shape.
        sample_weight: array (n,), or None for ones.

    Returns:
        Arrays of the shape of y and (n,).

    Raises:
        ValueError: other shapes, labels that the loss cannot take, negative weights.
    """
    target = as_float(y, "y")
    if sample_weight is None:
        sample_weight = np.ones(fit.shape[:1], fit.dtype)
    weight = as_float(sample_weight, "sample_weight")
    check_per_row(weight, "sample_weight", fit.shape[0])
    if fit.ndim == 1:
        check_one_output(loss)
        check_per_row(target, "y", fit.shape[0])
    check_target(loss, y)
    if fit.ndim > 1:
        check_shape(target, "y", fit.shape, "one row a sample and one column an output")
        check_outputs_of_parameters(loss)
    check_weights_sign(sample_weight)
    return target.astype(fit.dtype), weight.astype(fit.dtype)


def check_outputs_of_parameters(loss: Loss) -> None:
    """Refuses one number a sample, which could be taken for one an output; traced ones, too."""
    if any(jnp.ndim(leaf) == 1 for leaf in jax.tree.leaves(loss)):
        raise ValueError(
            f"{type(loss).__name__} has a parameter of one axis, and the fit has several outputs: "
            "pass a scalar, or an array of the shape of y."
        )


def parameter(value: Any, like: Array) -> Array:
    """A parameter of a loss in the dtype of the fits or duals that it goes with."""
    return jnp.asarray(value, like.dtype)


def check_parameter(value: Any, name: str, target: Any, *, positive: bool = False) -> None:
    """Refuses a parameter of a loss that is no scalar and has not the shape of the target.

    Args:
        value: of the parameter; None is let through, and values that are traced.
        name: of the parameter.
        target: array (n,), or (n, c).
        positive: whether it has to be.

    Raises:
        ValueError, TypeError: the sentence names the fix.
    """
    if value is None and not positive:
        return
    if isinstance(value, list | tuple):  # many leaves, where an array is one
        raise TypeError(f"{name} is {described(value)}; pass a number, or an array of them.")
    if not is_traced(value):
        known = number(value, name) if np.ndim(value) == 0 else known_floats(value, name)
        check_finite(known, name)
        if positive and bool(np.any(np.asarray(known) <= 0)):
            raise ValueError(f"{name} is {float(np.min(known)):g}; pass a positive number.")
    if jnp.ndim(value) and jnp.shape(value) != jnp.shape(target):
        raise ValueError(
            f"{name} has shape {jnp.shape(value)}, y has {jnp.shape(target)}: pass a scalar, or an "
            "array of the shape of y."
        )


def check_known_samples(rows: int, y: Any, sample_weight: Any = None) -> None:
    """Refuses targets and weights that a function of the host cannot look at.

    Args:
        rows: n.
        y: array (n,).
        sample_weight: array (n,), or None.

    Raises:
        TypeError: no numbers.
        ValueError: other shapes, a weight that is not finite, or a target that counts and is not.
    """
    target = np.asarray(float_array(y, "y"))
    check_per_row(target, "y", rows)
    if sample_weight is not None:
        weight = known_floats(sample_weight, "sample_weight")
        check_per_row(weight, "sample_weight", rows)
        target = np.where(weight == 0, 0.0, target)
    check_finite(target, "y")


def check_labels(y: Any, who: str, instead: str = "") -> None:
    """Refuses labels other than -1 and +1; NaN is let through.

    Args:
        y: known array.
        who: what takes labels, for the message.
        instead: what takes any target.

    Raises:
        ValueError: the sentence names the labels found and the fix.
    """
    labels = np.unique(np.asarray(y))
    labels = labels[~np.isnan(labels)]
    if np.isin(labels, (-1.0, 1.0)).all():
        return
    if np.isin(labels, (0.0, 1.0)).all():
        raise ValueError(f"{who} takes labels -1 and +1, but y holds 0 and 1: pass 2 * y - 1.")
    other = f", or use {instead} for a real target" if instead else ""
    raise ValueError(
        f"{who} takes labels -1 and +1, but y holds {labels[:5].tolist()}: map the two classes to "
        f"-1 and +1{other}."
    )
