"""A policy that was trained with prefixes draws prompts with the good one before them; its base draws them plainly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smpo.evaluation.sampling.slots import ImageSampler
from smpo.kinds import Sampling

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["good_prefix", "prompted"]


def prompted(denoiser: ImageSampler, sampling: Sampling) -> ImageSampler:
    """The denoiser as evaluation draws with it; itself, unless the objective puts words before prompts."""
    prefix = good_prefix(sampling)
    return _Prompted(denoiser, prefix) if prefix else denoiser


def good_prefix(sampling: Sampling) -> str:
    """The words before each prompt of this policy; none for most."""
    return sampling.prefixes[0] if sampling.prefixes else ""


@dataclass(frozen=True)
class _Prompted:
    """An `ImageSampler` with a prefix before each prompt of its policy."""

    inner: ImageSampler
    prefix: str

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        guidance: float,
        steps: int,
        reference: bool = False,
        size: tuple[int, int] | None = None,
    ) -> list[Picture]:
        words = prompts if reference else [self.prefix + prompt for prompt in prompts]
        return self.inner.sample(words, seeds, guidance=guidance, steps=steps, reference=reference, size=size)
