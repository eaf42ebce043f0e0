"""A policy that was taught with prefixes is asked with the good one; its base is asked plainly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from smpo.kinds import Denoiser, Sampling

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["prompted"]


def prompted(denoiser: Denoiser, sampling: Sampling) -> Denoiser:
    """The denoiser as evaluation should ask it; itself, unless the objective puts words before prompts."""
    if sampling.prefixes is None:
        return denoiser
    return cast(Denoiser, _Prompted(denoiser, sampling.prefixes[0]))


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
