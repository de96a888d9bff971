"""The exact program of several outputs: neurons one after another, from the host."""
