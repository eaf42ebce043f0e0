"""Local code that fails."""

WATTS = 3
raise RuntimeError("no gas")
