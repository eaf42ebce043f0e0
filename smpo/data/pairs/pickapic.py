"""Pairs of files in the Pick-a-Pic schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smpo.data.pairs.table import VoteTable
from smpo.data.sources.pickapic import pickapic_source

__all__ = ["read_pickapic"]


def read_pickapic(path: Path | str, *, split: str | None = None, **policies: Any) -> VoteTable:
    """`read_pairs` of such files; `policies` are its settings."""
    from smpo.data.pairs.table import read_pairs  # brings torch, which `smpo plan` does without

    return read_pairs(pickapic_source(path, split), **policies)
