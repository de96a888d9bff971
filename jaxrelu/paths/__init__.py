"""The optimum as a function of lam: what users call."""
