"""The optimum followed through every breakpoint."""
