"""The ways to run a grid: whole, in chunks, one by one, mapped inside a trace, over devices.

Each takes a `GridRequest`, checked, and gives a `Solution` with a leading axis of lams. Which way
is for whom is decided in `jaxrelu.paths.grid`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrelu.core.compilation import compiled
from jaxrelu.geometry.gram import are_many
from jaxrelu.paths.traced_solve import solve_traced, solved
from jaxrelu.programs.preparation import with_interior
from jaxrelu.programs.program import Program
from jaxrelu.programs.sharding import automatic
from jaxrelu.programs.solution import Solution, joined, shared
from jaxrelu.solvers.active_newton.solver import ActiveNewton
from jaxrelu.solvers.base import Solver, Tolerance, WarmStart


class GridRequest(NamedTuple):
    """What every way needs: `solve`'s arguments after their checks, many lams."""

    program: Program
    lams: Array
    tolerance: Tolerance
    max_steps: Array
    init: WarmStart | None
    solver: Any

    def at(self, lams: Any) -> GridRequest:
        """The same for other lams, or for one."""
        return self._replace(lams=lams)

    @property
    def num_lams(self) -> int:
        """The number of lams."""
        return int(self.lams.shape[0])


def keeps_lanes(solver: Solver, program: Program) -> TypeGuard[ActiveNewton]:
    """Whether a batch from the host is one of `jaxrelu.solvers.active_newton.lanes`."""
    many = program.has_cones and are_many(program.X.shape[0])
    return isinstance(solver, ActiveNewton) and not many


@compiled
def whole(*request: Any) -> Solution:
    """All lams of a `GridRequest` as one compiled batch."""
    asked = _with_witnesses(GridRequest(*request))
    return jax.vmap(lambda lam: solve_traced(*asked.at(lam)))(asked.lams)


def _with_witnesses(asked: GridRequest) -> GridRequest:
    """What does not depend on lam is computed once, outside the batch."""
    return asked._replace(program=with_interior(asked.program))


def one_by_one(asked: GridRequest) -> Solution:
    """One lam after the other, from the host."""
    return joined([solved(*asked.at(lam)) for lam in asked.lams], jnp.stack)


def in_chunks(asked: GridRequest, batch: int) -> Solution:
    """`batch` lams at once, chunk after chunk, from the host."""
    count, parts = asked.num_lams, []
    for start in range(0, count, batch):
        # The last chunk is filled up with its last lam, so that one shape serves all.
        index = np.minimum(np.arange(start, start + batch), count - 1)
        part = shared(whole(*asked.at(asked.lams[index])))
        parts.append(jax.tree.map(lambda a, s=start: a[: count - s], part))
    return joined(parts, jnp.concatenate)


def mapped(asked: GridRequest, batch: int) -> Solution:
    """`batch` lams at once inside a trace."""
    asked = _with_witnesses(asked)

    def one(lam: Array) -> Solution:
        answer: Solution = solve_traced(*asked.at(lam))
        return answer

    return jax.lax.map(one, asked.lams, batch_size=batch if batch > 1 else None)


def over_mesh(asked: GridRequest, mesh: Mesh, batch: int) -> Solution:
    """Every device has lams of its own, `batch` at once, and stops on its own."""
    count, devices = asked.num_lams, mesh.devices.shape[0]
    spread = mesh_function(automatic(mesh), batch if batch < count else None)
    # Every device gets equally many: the last lam fills up.
    index = np.minimum(np.arange(-(-count // devices) * devices), count - 1)
    init = None if asked.init is None else jax.tree.map(np.asarray, asked.init)
    filled = spread(*asked.at(np.asarray(asked.lams)[index])._replace(init=init))
    return shared(jax.tree.map(lambda a: a[:count], filled))


@cache
def mesh_function(mesh: Mesh, batch: int | None) -> Any:
    """The compiled grid over a mesh, one function for a mesh and a batch size."""
    everywhere, spread = PartitionSpec(), PartitionSpec(mesh.axis_names[0])

    def run(*request: Any) -> Solution:
        *given, solver = _with_witnesses(GridRequest(*request))

        def local(*args: Any) -> Solution:
            asked = GridRequest._make((*args, solver))
            return mapped(asked, asked.num_lams if batch is None else batch)

        specs = (everywhere, spread, everywhere, everywhere, everywhere)
        sharded = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=spread, check_vma=False)
        return sharded(*given)

    return compiled(run, out_shardings=NamedSharding(mesh, PartitionSpec()))
