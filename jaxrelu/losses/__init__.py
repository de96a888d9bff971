"""Convex losses, one a file: the place for a loss of your own."""

from jaxrelu.losses.absolute import AbsoluteLoss as AbsoluteLoss
from jaxrelu.losses.base import Loss as Loss
from jaxrelu.losses.hinge import HingeLoss as HingeLoss
from jaxrelu.losses.huber import HuberLoss as HuberLoss
from jaxrelu.losses.logistic import LogisticLoss as LogisticLoss
from jaxrelu.losses.multinomial import MultinomialLoss as MultinomialLoss
from jaxrelu.losses.poisson import PoissonLoss as PoissonLoss
from jaxrelu.losses.quantile import QuantileLoss as QuantileLoss
from jaxrelu.losses.squared import SquaredLoss as SquaredLoss
from jaxrelu.losses.squared_hinge import SquaredHingeLoss as SquaredHingeLoss
