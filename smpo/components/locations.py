"""Where things named in a spec are: in smpo's own package, in a local folder, or on the hub."""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path

__all__ = ["is_hub_id", "locate", "missing"]

_HUB = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
_PACKAGED = "smpo:"


def locate(place: str) -> str:
    """`smpo:worlds/shapes/weights/base` -> the folder inside the installed package; everything else stays, with `~`
    expanded."""
    if place.startswith(_PACKAGED):
        inside = place.removeprefix(_PACKAGED)
        if ".." in Path(inside).parts or Path(inside).is_absolute():
            raise ValueError(f"`{place}` leaves the package")
        return str(files("smpo") / inside)
    return str(Path(place).expanduser()) if place.startswith("~") else place


def is_hub_id(place: str) -> bool:
    """`owner/name`, and no such folder here."""
    return bool(_HUB.match(place)) and not Path(place).exists()


def missing(place: str) -> str | None:
    """Why `place` can't be opened here, in a sentence, or None. A hub id counts as there when the network may be
    used or a copy lies in the hub's cache."""
    found = locate(place)
    if Path(found).exists():
        return None
    if not is_hub_id(place):
        return f"`{place}` is neither a folder here nor a hub id (owner/name)"
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"} and not _cached(place):
        return f"`{place}` is not in the hub's cache, and HF_HUB_OFFLINE forbids fetching it"
    return None


def _cached(repo: str) -> bool:
    base = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", base / "hub"))
    return (hub / f"models--{repo.replace('/', '--')}" / "snapshots").is_dir()
