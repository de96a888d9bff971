"""Two-layer networks, and what is true of any of them without a program."""

from jaxrelu.networks.network import GatedNetwork as GatedNetwork
from jaxrelu.networks.network import Network as Network
from jaxrelu.networks.network import nonconvex_objective as nonconvex_objective
