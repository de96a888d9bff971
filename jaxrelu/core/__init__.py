"""Words: what every other folder may use."""
