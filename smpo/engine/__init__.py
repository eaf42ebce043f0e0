"""Training itself: one pair step, the loop around it, checkpoints, and the events that others listen to."""
