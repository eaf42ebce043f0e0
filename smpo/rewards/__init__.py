"""Live rewards: what a reward recipe brings into memory, behind `kinds.Scorer`."""
