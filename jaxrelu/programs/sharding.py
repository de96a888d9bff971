"""Programs whose samples are spread over the devices of a mesh."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrelu.core.checks import check_type
from jaxrelu.core.tracing import on_host
from jaxrelu.programs.checks import check_data, check_kind, check_program
from jaxrelu.programs.program import Program


def automatic(mesh: Mesh) -> Mesh:
    """The same devices, with the placement of what is computed left to XLA."""
    axes = (AxisType.Auto,) * mesh.devices.ndim
    return Mesh(mesh.devices, mesh.axis_names, axis_types=axes)


@on_host()
def shard_samples(program: Program, mesh: Mesh) -> Program:
    """The same program with its samples spread over a mesh, for n that one device cannot hold.

    X, y, sample weights and masks are split along the samples, over the first axis of the mesh;
    gates and witnesses are on every device. `solve` and the others then run on all devices: XLA
    places the sums over samples.

    Args:
        program: a `ConvexProgram` or `GatedProgram`, concrete.
        mesh: a mesh of this process whose first axis divides n.

    Returns:
        The program, with the same values.

    Raises:
        ValueError, TypeError: see `check_program`; n is not a multiple of the devices: pad X, y and
            the masks with zero rows, which change nothing but the loss at a fit of zero.

    Example:
        >>> import jax, jaxrelu as jr, numpy as np
        >>> X = np.asarray([[1.0, 0.2], [0.3, -1.0]], "float32")
        >>> y = np.asarray([1.0, -1.0], "float32")
        >>> program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 4))
        >>> mesh = jax.make_mesh((1,), ("samples",))
        >>> jr.shard_samples(program, mesh).X.shape
        (2, 2)

    Reference: Xu et al. (2021), GSPMD, on computations that are split by how their data is placed.
    """
    check_kind(program)
    check_data(program)
    check_type(mesh, "mesh", Mesh, "a mesh of devices, such as jax.make_mesh((1,), ('samples',))")
    axis, devices = mesh.axis_names[0], mesh.devices.shape[0]
    n = np.shape(program.X)[0]
    if n % devices:
        raise ValueError(
            f"{n} samples do not divide over {devices} devices: pad X, y and the masks with "
            f"{-n % devices} zero rows, or use a mesh whose size divides n."
        )
    mesh = automatic(mesh)
    rows = NamedSharding(mesh, PartitionSpec(axis))
    whole = NamedSharding(mesh, PartitionSpec())

    def put(leaf: Any, place: NamedSharding) -> Any:
        # From the host each device gets its own part: no device holds all.
        if leaf is None:
            return None
        return jax.device_put(leaf if isinstance(leaf, jax.Array) else np.asarray(leaf), place)

    patterns = program.patterns
    spread = replace(
        program,
        X=put(program.X, rows),
        y=put(program.y, rows),
        patterns=replace(
            patterns,
            gates=put(patterns.gates, whole),
            masks=put(patterns.masks, rows),
            interior=put(patterns.interior, whole),
        ),
        sample_weight=put(program.sample_weight, rows),
        block_weights=put(program.block_weights, whole),
    )
    check_program(spread)  # values only now: one device need not hold them all
    return spread
