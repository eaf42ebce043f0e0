"""Is the policy better than its base? Sampling, judging, statistics, pictures and the model card.

Read `evaluate` first; `statistics` and `intervals` say what its numbers mean.
"""
