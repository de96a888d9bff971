"""Names for the types of NumPy arrays; nothing here imports JAX."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
FloatArray = NDArray[Any]  # of float32 or float64
