"""Two-layer ReLU networks, trained to certified global optimality."""

from jaxrelu.grid import solve_grid as solve_grid
from jaxrelu.losses import LogisticLoss as LogisticLoss
from jaxrelu.losses import Loss as Loss
from jaxrelu.losses import SquaredLoss as SquaredLoss
from jaxrelu.mapping import from_network as from_network
from jaxrelu.mapping import to_network as to_network
from jaxrelu.memory import estimate_memory as estimate_memory
from jaxrelu.networks import GatedNetwork as GatedNetwork
from jaxrelu.networks import Network as Network
from jaxrelu.networks import nonconvex_objective as nonconvex_objective
from jaxrelu.optimality import Certificate as Certificate
from jaxrelu.optimality import KKTResidual as KKTResidual
from jaxrelu.optimality import block_correlations as block_correlations
from jaxrelu.optimality import certify as certify
from jaxrelu.optimality import kkt_residual as kkt_residual
from jaxrelu.path import Path as Path
from jaxrelu.path import solve_path as solve_path
from jaxrelu.patterns import Patterns as Patterns
from jaxrelu.patterns import count_patterns as count_patterns
from jaxrelu.patterns import enumerate_patterns as enumerate_patterns
from jaxrelu.patterns import patterns_from_gates as patterns_from_gates
from jaxrelu.patterns import patterns_from_weights as patterns_from_weights
from jaxrelu.patterns import sample_patterns as sample_patterns
from jaxrelu.program import ConvexProgram as ConvexProgram
from jaxrelu.program import GatedProgram as GatedProgram
from jaxrelu.program import lambda_grid as lambda_grid
from jaxrelu.program import lambda_max as lambda_max
from jaxrelu.program import objective as objective
from jaxrelu.pytrees import register as register
from jaxrelu.sharding import shard_samples as shard_samples
from jaxrelu.solution import Solution as Solution
from jaxrelu.solution import raise_if_failed as raise_if_failed
from jaxrelu.solve import solve as solve
from jaxrelu.solvers.active_newton import ActiveNewton as ActiveNewton
from jaxrelu.solvers.admm import ADMM as ADMM
from jaxrelu.status import Status as Status

__version__ = "0.1.0"
