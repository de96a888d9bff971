"""What tests of optimal sets share."""

import numpy as np
import zoo

import jaxrelu as jr

TRIANGLE = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])


LAM = 0.5


def segment(y):
    program = zoo.tiny(TRIANGLE, y)
    return program, jr.solve(program, LAM)


def in_order(optima):
    """Columns as (x_1, x_2, between), the order of the known answer."""
    directions = np.zeros((3, zoo.FEATURES))
    directions[:, :2] = [TRIANGLE[0], TRIANGLE[1], [0.5, 0.75**0.5]]
    distance = np.linalg.norm(np.asarray(optima.directions)[None] - directions[:, None], axis=2)
    assert np.max(np.min(distance, axis=1)) < 1e-9
    return np.argmin(distance, axis=1)
