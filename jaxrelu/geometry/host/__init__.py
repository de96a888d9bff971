"""Geometry on the host: NumPy in float64, never traced; nothing here imports JAX."""
