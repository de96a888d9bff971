"""Convex losses, one a file: the place for a loss of your own."""

from jaxrelu.losses.base import Loss as Loss
from jaxrelu.losses.logistic import LogisticLoss as LogisticLoss
from jaxrelu.losses.squared import SquaredLoss as SquaredLoss
