"""What a run leaves on disk: its folder, its state, and the facts needed to repeat it."""
