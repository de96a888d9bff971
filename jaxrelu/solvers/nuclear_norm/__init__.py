"""Blocks under nuclear norms: an augmented Lagrangian with Newton steps in the fit."""
