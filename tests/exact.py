"""Certificates in exact arithmetic: fractions, and intervals of 60 digits for roots and logs."""

from fractions import Fraction

import mpmath
import numpy as np

_DIGITS = 60


def fractions(array):
    """A float array as nested lists of the fractions that its numbers are."""
    array = np.asarray(array)
    if array.ndim == 1:
        return [Fraction(float(v)) for v in array]
    return [fractions(row) for row in array]


def interval(number):
    """An interval that holds a fraction."""
    return mpmath.iv.mpf(number.numerator) / mpmath.iv.mpf(number.denominator)


def _logistic(fit, target):
    return mpmath.iv.log(1 + mpmath.iv.exp(-interval(target * fit)))


def _entropy(p):
    parts = [interval(q) * mpmath.iv.log(interval(q)) for q in (p, 1 - p) if q > 0]
    return sum(parts, mpmath.iv.mpf(0))


def _slopes(program):
    """The two slopes of a loss with a kink for every sample, or None."""
    y, name = fractions(program.y), type(program.loss).__name__
    if name == "HingeLoss":
        return [(-max(t, Fraction(0)), max(-t, Fraction(0))) for t in y]
    if name == "AbsoluteLoss":
        return [(Fraction(-1), Fraction(1))] * len(y)
    if name == "QuantileLoss":
        q = Fraction(float(np.asarray(program.loss.q, np.asarray(program.y).dtype)))
        return [(-q, 1 - q)] * len(y)
    return None


def certificate_faults(program, lam, certificate):
    """What is wrong with a certificate, as a list of sentences: empty if it proves what it says.

    Every row of every cone at the weights is >= 0, the objective there is <= upper, the dual value
    is >= lower and, where the certificate has multipliers mu >= 0,
    ||s X^T D_j dual + K_j^T mu||^2 <= lam^2: all of it exactly.
    """
    with mpmath.workdps(_DIGITS):
        mpmath.iv.dps = _DIGITS
        return [
            *_primal_faults(program, lam, certificate),
            *_dual_faults(program, lam, certificate),
        ]


def _primal_faults(program, lam, certificate):
    X, y = fractions(program.X), fractions(program.y)
    weight = fractions(program.sample_weight)
    masks = np.asarray(program.patterns.masks)
    fit = [Fraction(0)] * len(y)
    penalty, faults = mpmath.iv.mpf(0), []
    for (s, j), theta in np.ndenumerate(np.empty(program.block_shape)):
        theta = fractions(np.asarray(certificate.weights)[s, j])
        for i, x in enumerate(X):
            value = sum(a * b for a, b in zip(x, theta, strict=True))
            if (value if masks[i, j] else -value) < 0:
                faults.append(f"row {i} of block {s, j} is {float(value):.3g}")
            if masks[i, j]:
                fit[i] += -value if s else value
        penalty += mpmath.iv.sqrt(interval(sum(a * a for a in theta)))
    if type(program.loss).__name__ == "SquaredLoss":
        terms = zip(weight, fit, y, strict=True)
        loss = interval(sum(c * (f - t) ** 2 for c, f, t in terms) / 2)
    elif (slopes := _slopes(program)) is not None:
        samples = zip(weight, fit, y, slopes, strict=True)
        rises = (c * max(s * (f - t) for s in two) for c, f, t, two in samples)
        loss = interval(sum(rises))
    else:
        terms = zip(weight, fit, y, strict=True)
        loss = sum((interval(c) * _logistic(f, t) for c, f, t in terms), mpmath.iv.mpf(0))
    objective = loss + interval(Fraction(float(lam))) * penalty
    if not objective.b <= interval(Fraction(float(certificate.upper))).a:
        faults.append(f"the objective is {objective.b}, upper {certificate.upper}")
    return faults


def _dual_faults(program, lam, certificate):
    X, y = fractions(program.X), fractions(program.y)
    weight, dual = fractions(program.sample_weight), fractions(certificate.dual)
    masks, faults = np.asarray(program.patterns.masks), []
    terms = list(zip(weight, dual, y, strict=True))
    if type(program.loss).__name__ == "SquaredLoss":
        value = interval(sum(r * t - r * r / (2 * c) for c, r, t in terms))
    elif (slopes := _slopes(program)) is not None:
        shares = zip(terms, slopes, strict=True)
        if not all(low <= -r / c <= high if c else r == 0 for (c, r, _), (low, high) in shares):
            return ["the dual point is outside the domain"]
        value = interval(sum(r * t for _, r, t in terms))
    else:
        shares = [r * t / c for c, r, t in terms]
        if not all(0 <= p <= 1 for p in shares):
            return ["the dual point is outside the domain"]
        parts = (-interval(c) * _entropy(p) for c, p in zip(weight, shares, strict=True))
        value = sum(parts, mpmath.iv.mpf(0))
    if not value.a >= interval(Fraction(float(certificate.lower))).b:
        faults.append(f"the dual value is {value.a}, lower {certificate.lower}")
    if certificate.multipliers is None:
        return faults
    square = Fraction(float(lam)) ** 2
    for (s, j), mu in np.ndenumerate(np.empty(program.block_shape)):
        mu = fractions(np.asarray(certificate.multipliers)[s, j])
        if min(mu) < 0:
            faults.append(f"a multiplier of block {s, j} is negative")
        q = [Fraction(0)] * len(X[0])
        for i, x in enumerate(X):
            inside = bool(masks[i, j])
            share = (-dual[i] if s else dual[i]) * inside + (mu[i] if inside else -mu[i])
            q = [a + share * b for a, b in zip(q, x, strict=True)]
        if sum(a * a for a in q) > square:
            faults.append(f"block {s, j} is longer than lam")
    return faults
