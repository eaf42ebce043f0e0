"""Where things named in a spec are: in smpo's own package, in a local folder, or on the hub."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from smpo.weights import is_weight_file

__all__ = ["data_command", "is_hub_id", "is_url", "locate", "missing", "to_fetch"]

_HUB = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
_PACKAGED = "smpo:"
_DATA = (".parquet", ".csv", ".tsv", ".json", ".jsonl", ".txt", ".tar", ".db")
Kind = Literal["models", "datasets"]


def locate(place: str) -> str:
    """`smpo:worlds/shapes/weights/base` -> the folder inside the installed package; everything else stays, with `~`
    expanded."""
    if place.startswith(_PACKAGED):
        inside = place.removeprefix(_PACKAGED)
        if ".." in Path(inside).parts or Path(inside).is_absolute():
            raise ValueError(f"`{place}` leaves the package")
        return str(files("smpo") / inside)
    return str(Path(place).expanduser()) if place.startswith("~") else place


def is_url(place: str) -> bool:
    """`s3://bucket/key`, `https://host/file`: something that is read where it lies."""
    return "://" in place


def is_hub_id(place: str) -> bool:
    """`owner/name`, and no such folder here. `folder/prompts.csv` is a file, whether it is there or not."""
    spelt_as_file = is_weight_file(place) or Path(place).suffix.lower() in _DATA
    return bool(_HUB.match(place)) and not spelt_as_file and not Path(place).exists()


def missing(place: str, kind: Kind = "models", *, revision: str | None = None, file: str | None = None) -> str | None:
    """Why `place` can't be opened here, in a sentence, or None. A hub id counts as there when a copy of the wanted
    revision lies in the hub's cache, or when it can be fetched. A copy may lack some files: `file`, a glob, is among
    those that are needed."""
    if Path(locate(place)).exists():
        return None
    if is_weight_file(place):
        return f"there is no file `{place}`"
    if not is_hub_id(place):
        return f"`{place}` is neither a folder here nor a hub id (owner/name)"
    what = f"`{place}` is not in the hub's cache"
    if _cached(place, kind, revision):
        if file is None or any(_repository(place, kind).glob(f"snapshots/*/{file}")):
            return None
        what = f"`{place}` is in the hub's cache without {file}"
    elif _cached(place, kind):
        what += f" at revision {revision}"
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        return f"{what}, and HF_HUB_OFFLINE forbids fetching it"
    if reason := _unreachable():
        return f"{what}, and the hub can't be reached: {reason}"
    return None


def to_fetch(place: str, kind: Kind = "models", *, revision: str | None = None) -> bool:
    """Whether `place` is a hub id of which no copy, of this revision, lies here."""
    return is_hub_id(place) and not _cached(place, kind, revision)


def data_command(place: str, revision: str | None) -> str:
    """What fetches a data set, and what stands before another remedy."""
    pin = f" --revision {revision}" if revision else ""
    where = "where there is a network (a gated one after `hf auth login`), or "
    return f"`hf download {place} --repo-type dataset{pin}` {where}"


def _cached(repo: str, kind: Kind = "models", revision: str | None = None) -> bool:
    """Whether the hub's cache has a copy; `revision` is a commit, or a name that an earlier fetch has resolved."""
    folder = _repository(repo, kind)
    if revision is None:
        return (folder / "snapshots").is_dir()
    return (folder / "snapshots" / revision).is_dir() or (folder / "refs" / revision).is_file()


def _repository(repo: str, kind: Kind) -> Path:
    base = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", base / "hub"))
    return hub / f"{kind}--{repo.replace('/', '--')}"


@lru_cache(maxsize=1)
def _unreachable() -> str | None:
    """Why no connection to the hub can be opened, if the system reports it within half a second. Nothing is sent.

    Slow answers and proxies count as reachable: a fetch will say more.
    """
    import socket
    import threading
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    address = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    if address.hostname is None or getproxies():
        return None
    port = address.port or (80 if address.scheme == "http" else 443)
    reasons: list[str] = []

    def knock() -> None:
        try:
            socket.create_connection((address.hostname, port), timeout=5).close()
        except TimeoutError:
            pass
        except OSError as error:
            reasons.append(error.strerror or str(error))

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(0.5)
    return reasons[0] if reasons else None
