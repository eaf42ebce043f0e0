"""Evaluation results as data: judgements, comparisons, ablations, drift, reward hacking."""
