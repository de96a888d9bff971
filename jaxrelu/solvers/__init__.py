"""Algorithms under one contract (`jaxrelu.solvers.base`)."""

from jaxrelu.solvers.active_newton.solver import ActiveNewton as ActiveNewton
from jaxrelu.solvers.admm import ADMM as ADMM
from jaxrelu.solvers.base import Evidence as Evidence
from jaxrelu.solvers.base import Solver as Solver
from jaxrelu.solvers.base import Tolerance as Tolerance
