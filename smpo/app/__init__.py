"""Use-cases: what the commands do, without printing. The only layer that sees a whole spec."""
