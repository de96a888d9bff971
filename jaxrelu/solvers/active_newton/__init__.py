"""The outer method: a working set of blocks, in three schedules of the same rounds."""

from jaxrelu.solvers.active_newton.solver import ActiveNewton as ActiveNewton
