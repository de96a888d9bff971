"""Programs of several outputs: gated, one against all, exact."""
