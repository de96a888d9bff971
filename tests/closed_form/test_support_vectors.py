"""Shortest vectors of a margin."""

import numpy as np
import pytest

from jaxrelu import closed_form


def test_rows_too_short_for_a_margin_beside_the_others():
    with pytest.raises(ValueError, match="too short for a margin"):
        closed_form.separable(np.asarray([[1.0, 0.0], [1e-10, 1e-10]]), np.ones(2))
