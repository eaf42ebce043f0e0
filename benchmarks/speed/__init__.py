"""What `benchmarks/side_by_side.py` is made of: two independent arms over the same networks, pairs and timesteps."""
