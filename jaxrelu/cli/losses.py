"""The losses that commands offer, and the targets that they ask for."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Any

import numpy as np

from jaxrelu import datasets
from jaxrelu.losses import (
    AbsoluteLoss,
    HingeLoss,
    HuberLoss,
    LogisticLoss,
    Loss,
    PoissonLoss,
    QuantileLoss,
    SquaredHingeLoss,
    SquaredLoss,
)

# Of standardised errors: 95 % of the efficiency of least squares where they are normal.
DELTA = 1.345


class LossName(StrEnum):
    """Losses on offer."""

    squared = "squared"
    huber = "huber"
    logistic = "logistic"
    squared_hinge = "squared-hinge"
    hinge = "hinge"
    absolute = "absolute"
    quantile = "quantile"
    poisson = "poisson"


_OF_LABELS = (LossName.logistic, LossName.squared_hinge, LossName.hinge)


def for_loss(name: LossName, data: datasets.Dataset, target: str | None) -> datasets.Dataset:
    """The data as the loss takes them; counts are not standardised.

    Raises:
        ValueError: the target is not one that the loss takes.
    """
    if name in _OF_LABELS and data.task != "classification":
        raise ValueError(
            f"--loss {name} needs a target with two values, but {target!r} has "
            f"{len(np.unique(data.y))}: use --loss squared."
        )
    if name is not LossName.poisson:
        return data
    if data.task == "classification":
        raise ValueError(
            "--loss poisson needs counts, but the target has two values: use --loss logistic."
        )
    lowest = float(np.min(data.y))
    if lowest < 0:
        raise ValueError(
            f"--loss poisson needs counts or rates >= 0, but {target!r} holds {lowest:g}: use "
            "--loss squared or huber."
        )
    return replace(data, task="counts")


def chosen(name: LossName, delta: float, quantile: float, y: Any) -> Loss:
    """The loss for the training target; that of counts has the logarithm of their mean as offset.

    A network without a bias at lam = lambda_max, which is zero, then predicts the mean.
    """
    if name is LossName.huber:
        return HuberLoss(np.asarray(delta, y.dtype))
    if name is LossName.poisson:
        return PoissonLoss(np.log(np.mean(y)))
    if name is LossName.quantile:
        return QuantileLoss(np.asarray(quantile, y.dtype))
    plain: dict[LossName, Loss] = {
        LossName.squared: SquaredLoss(),
        LossName.absolute: AbsoluteLoss(),
        LossName.logistic: LogisticLoss(),
        LossName.squared_hinge: SquaredHingeLoss(),
        LossName.hinge: HingeLoss(),
    }
    return plain[name]


def offset_of(loss: Loss) -> float:
    """What is added to the output of a network before it is a prediction."""
    return float(loss.offset) if isinstance(loss, PoissonLoss) else 0.0
