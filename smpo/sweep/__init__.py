"""Sweeps: the search space, the study, and what is learnt from it. Knows Optuna; trains nothing itself."""
