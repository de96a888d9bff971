"""Convex losses, one a file: the place for a loss of your own."""

from jaxrelu.losses.base import Loss as Loss
from jaxrelu.losses.huber import HuberLoss as HuberLoss
from jaxrelu.losses.logistic import LogisticLoss as LogisticLoss
from jaxrelu.losses.poisson import PoissonLoss as PoissonLoss
from jaxrelu.losses.squared import SquaredLoss as SquaredLoss
from jaxrelu.losses.squared_hinge import SquaredHingeLoss as SquaredHingeLoss
