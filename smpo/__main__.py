"""`python -m smpo`, for launchers that start modules: `torchrun ... -m smpo run SPEC`."""

from smpo.cli.main import main

if __name__ == "__main__":
    main()
