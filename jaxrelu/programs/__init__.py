"""The convex programs, and what proves an answer."""
