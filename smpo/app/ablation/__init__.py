"""Ablations: one base spec, variants of it, the same seeds for all, and one table with paired intervals."""
