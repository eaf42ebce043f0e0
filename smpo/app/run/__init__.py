"""One run from start to end: training, checkpoints, evaluation, records, cost."""
