"""A policy that was taught with prefixes is asked with the good one; its base is asked plainly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from smpo.kinds import Denoiser, Sampling

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["good_prefix", "prompted"]


def prompted(denoiser: Denoiser, sampling: Sampling) -> Denoiser:
    """The denoiser as evaluation should ask it; itself, unless the objective puts words before prompts."""
    prefix = good_prefix(sampling)
    return cast(Denoiser, _Prompted(denoiser, prefix)) if prefix else denoiser


def good_prefix(sampling: Sampling) -> str:
    """What goes before a prompt that this policy is asked; nothing for most."""
    return sampling.prefixes[0] if sampling.prefixes else ""


class _Prompted:
    """Everything of a denoiser, with a prefix before what its policy is asked to draw."""

    def __init__(self, inner: Denoiser, prefix: str) -> None:
        self._inner, self._prefix = inner, prefix

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], *, reference: bool = False, **how: Any
    ) -> list[Picture]:
        asked = prompts if reference else [self._prefix + prompt for prompt in prompts]
        return self._inner.sample(asked, seeds, reference=reference, **how)
