"""Checks of a machine, of a run, of saved models and of data."""
