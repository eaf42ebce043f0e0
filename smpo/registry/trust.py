"""Trust in local code: a Python file that a spec names in `uses:` runs only where its content is trusted.

`--trust-code` trusts the content of every file that a command reads, and keeps its SHA-256 in the user's state folder
for later commands. Without it no command runs code of a spec or run folder that came from another person. The processes
of a command inherit its trust by the environment variable `SMPO_TRUSTED_CODE`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["VARIABLE", "is_trusted", "store", "trust_all"]

VARIABLE = "SMPO_TRUSTED_CODE"
"""Trusted digests, separated by commas; build servers may set it."""

_all = False


def trust_all(value: bool) -> None:
    """Whether every local file that is read from now on is trusted (`--trust-code`)."""
    global _all
    _all = value


def is_trusted(digest: str) -> bool:
    """Whether code with this SHA-256 may run."""
    if digest in os.environ.get(VARIABLE, "").split(","):
        return True
    if _all or digest in _stored():
        _record(digest)
        return True
    return False


def store() -> Path | None:
    """The file of trusted digests, one per line; None for a user without a home folder."""
    try:
        base = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    except RuntimeError:
        return None
    return base / "smpo" / "trusted_code"


def _stored() -> set[str]:
    file = store()
    try:
        return set(file.read_text("ascii").split()) if file is not None else set()
    except (OSError, UnicodeDecodeError):
        return set()


def _record(digest: str) -> None:
    """For the processes of this command, and for later commands where the file can be written."""
    os.environ[VARIABLE] = ",".join(filter(None, (os.environ.get(VARIABLE), digest)))
    file = store()
    if file is None or digest in _stored():
        return
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="ascii") as stream:
            stream.write(f"{digest}\n")
