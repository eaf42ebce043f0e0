"""Evaluation of runs, and comparison of several models on the same prompts and seeds."""
