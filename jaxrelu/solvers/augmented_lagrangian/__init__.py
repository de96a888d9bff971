"""The inner method, on the blocks of a working set."""
