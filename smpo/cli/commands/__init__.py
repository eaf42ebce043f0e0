"""What each command takes, in the words of its `--help`; the work is done by the modules they import when called."""
