"""From the optimum over some cells to the optimum over all."""
