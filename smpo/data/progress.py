"""The signature of progress callbacks."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress"]


Progress = Callable[[str, int, int], None]
"""Told from time to time how far a long job is: what it does, how many are done, of how many."""
