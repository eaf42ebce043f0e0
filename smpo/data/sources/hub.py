"""Data sets on the hub: fetched once into the hub's own cache, and read from there as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smpo.errors import MachineError

__all__ = ["fetch_data"]


def fetch_data(repo: str, revision: str | None, patterns: Sequence[str], *, setting: str = "data.path") -> Path:
    """The folder of a snapshot. A cached snapshot causes no request when a commit is pinned, or without a network.
    Raises `MachineError` in words for what is gone, gated or out of reach; `setting` takes a copy instead."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    here = f"or give the path of a copy: `--set {setting}=FOLDER`"
    wanted = {"repo_type": "dataset", "revision": revision, "allow_patterns": list(patterns)}
    try:
        return Path(snapshot_download(repo, **wanted))
    except GatedRepoError as error:
        raise MachineError(
            f"the data set `{repo}` is gated", help=f"accept its terms on the hub and set HF_TOKEN, {here}"
        ) from error
    except RepositoryNotFoundError as error:
        raise MachineError(
            f"there is no data set `{repo}` on the hub, or it is private", help=f"set HF_TOKEN, {here}"
        ) from error
    except RevisionNotFoundError as error:
        raise MachineError(f"the data set `{repo}` has no revision `{revision}`", help="look at its history") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MachineError(
            f"the data set `{repo}` isn't in the hub's cache and can't be fetched: {reason}",
            help=f"connect to the hub, {here}",
        ) from error
