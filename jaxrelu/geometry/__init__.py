"""The cells that data cut out of space, and their cones."""
