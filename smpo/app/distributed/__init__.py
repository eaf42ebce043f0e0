"""Several processes of one run: environment, launcher, liveness, shared cache work."""
