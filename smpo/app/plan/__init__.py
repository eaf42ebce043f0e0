"""`smpo plan`: requirements, warnings, forward passes, time, memory and disk, computed before anything runs."""
