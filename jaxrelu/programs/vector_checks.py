"""Programs of several outputs and their weights as arguments, with sentences that name the fix."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrelu.core.checks import (
    as_float,
    check_dtype,
    check_leaf,
    check_matrix_shape,
    check_per_row,
    check_shape,
    check_type,
)
from jaxrelu.core.device import check_device
from jaxrelu.core.options import check_choice, count
from jaxrelu.core.tracing import is_traced
from jaxrelu.geometry.checks import check_patterns
from jaxrelu.geometry.patterns import Patterns
from jaxrelu.losses.checks import (
    check_no_kinks,
    check_outputs_of_parameters,
    check_target,
    check_weights_sign,
    checked_loss,
)
from jaxrelu.programs.vector_bounds import Neurons
from jaxrelu.programs.vector_program import (
    KINDS,
    VectorProgram,
    has_joint_outputs,
    targets,
    with_targets,
)


def checked_outputs(program: VectorProgram) -> VectorProgram:
    """A program of several outputs with targets (n, c), its values checked where they are concrete.

    Raises:
        TypeError: arrays of other types, or mixed dtypes.
        ValueError: another kind, wrong shapes, labels that are no classes, targets that the loss
            cannot take, masks that do not match the gates, a loss that does not go with the kind.
        RuntimeError: a jaxlib or a device that computes wrong values.
    """
    check_choice(program.kind, "kind", KINDS)
    X = program.X
    check_leaf(X, "X")
    check_matrix_shape(X, "X")
    check_device(X.dtype)
    fix = "jr.sample_patterns(key, X, num_gates) or jr.Patterns(gates, masks)"
    check_type(program.patterns, "patterns", Patterns, fix)
    if program.sample_weight is not None:
        check_leaf(program.sample_weight, "sample_weight", X.dtype)
        check_per_row(program.sample_weight, "sample_weight", X.shape[0])
        check_weights_sign(program.sample_weight)
    loss = checked_loss(program.loss)
    _check_targets(program)
    check_patterns(program.patterns, X, "none")
    if program.kind == "one_vs_all" and has_joint_outputs(loss):
        raise ValueError(
            f'kind="one_vs_all" takes the outputs apart, and {type(loss).__name__} takes them '
            'together: use kind="gated" or "exact", or LogisticLoss, one class against the rest.'
        )
    if program.kind != "one_vs_all":
        check_no_kinks(loss, f'kind="{program.kind}"')
    check_target(loss, program.Y if is_traced(program.Y) else targets(program))
    check_outputs_of_parameters(loss)
    return with_targets(program)


def _check_targets(program: VectorProgram) -> None:
    """One column an output, or labels."""
    Y, rows = program.Y, program.X.shape[0]
    if not isinstance(Y, np.ndarray | Array):
        check_leaf(Y, "Y", program.X.dtype)
    if program.num_classes is not None:
        count(program.num_classes, "num_classes", least=1)
    shape = np.shape(Y)
    if len(shape) == 2:
        check_leaf(Y, "Y", program.X.dtype)
        check_shape(Y, "Y", (rows, max(shape[1], 1)), "one row a sample and one column an output")
        if program.num_classes is not None and program.num_classes != shape[1]:
            raise ValueError(
                f"num_classes is {program.num_classes}, and Y has {shape[1]} columns: leave "
                "num_classes out, it is for labels."
            )
        return
    check_shape(Y, "Y", (rows,), "one label a sample, or (n, c), one column an output")
    if is_traced(Y):
        return
    labels = np.asarray(Y)
    if not np.issubdtype(labels.dtype, np.number):
        raise TypeError(
            f"Y holds labels of dtype {labels.dtype}: pass 0, 1, ..., c - 1, for example "
            "np.unique(Y, return_inverse=True)[1]."
        )
    most = np.inf if program.num_classes is None else program.num_classes
    wrong = ~((labels >= 0) & (labels < most) & (labels == np.round(labels)))
    if bool(np.any(wrong)):
        raise ValueError(
            f"Y holds the label {labels[wrong][0]}; labels are 0, 1, ..., c - 1 (num_classes is "
            f"{program.num_classes}): pass np.unique(Y, return_inverse=True)[1], or targets (n, c)."
        )


def check_vector_weights(program: VectorProgram, weights: Any, name: str = "weights") -> Any:
    """Weights of the shape of the program; of an exact one its neurons."""
    if program.kind != "exact":
        weights = as_float(weights, name)
        check_shape(weights, name, program.weights_shape, "as this program has")
        check_dtype(weights, name, program.X.dtype)
        return weights
    check_type(
        weights, name, Neurons, "the weights of a Solution, Neurons(directions, outputs, cells)"
    )
    k = np.shape(weights.cells)[:1]
    directions, outputs = (
        as_float(part, f"{name}.{part_name}")
        for part, part_name in ((weights.directions, "directions"), (weights.outputs, "outputs"))
    )
    check_shape(directions, f"{name}.directions", (*k, program.X.shape[1]), "one a neuron")
    check_shape(outputs, f"{name}.outputs", (*k, program.num_outputs), "one a neuron")
    for part, part_name in ((directions, "directions"), (outputs, "outputs")):
        check_dtype(part, f"{name}.{part_name}", program.X.dtype)
    cells = weights.cells
    if not is_traced(cells):
        p = program.patterns.masks.shape[1]
        known = np.asarray(cells)
        if bool(np.any((known < 0) | (known >= p))):
            raise ValueError(
                f"{name}.cells holds {int(known[(known < 0) | (known >= p)][0])}, but the program "
                f"has {p} patterns: pass neurons of this program."
            )
    return Neurons(directions, outputs, jnp.asarray(cells, jnp.int32))


def check_outputs_residual(program: VectorProgram, residual: Any) -> Array:
    """A matrix with one number a sample and output."""
    residual = as_float(residual, "residual")
    shape = (program.X.shape[0], program.num_outputs)
    check_shape(residual, "residual", shape, "one row a sample and one column an output")
    return residual.astype(program.X.dtype)


def check_nothing_beside(**others: Any) -> None:
    """Refuses arguments of programs of one output that those of several do not know."""
    for name, value in others.items():
        if value is not None and value is not False:
            raise ValueError(
                f"{name} is given, and programs of several outputs know none: leave it out."
            )
