"""The polar gauge R(r) = max over ||u|| <= 1 of |r^T (X u)_+|: lower and upper bounds of it."""
