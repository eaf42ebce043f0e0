"""Where a run reports: a log in its folder that is the truth, a mirror of it in MLflow, and the terminal."""
