"""Training itself: one pair step, the loop around it, checkpoints, and monitoring."""
