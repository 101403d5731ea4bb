"""Checks of this machine, this checkout, a model and a short training run."""
