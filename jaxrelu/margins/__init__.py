"""The limit of vanishing regularization."""
