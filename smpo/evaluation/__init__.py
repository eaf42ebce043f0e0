"""Is the policy better than its base? Sampling, judging, statistics, pictures and the model card.

Read `results/evaluate.py` first; `statistics` defines its figures.
"""
