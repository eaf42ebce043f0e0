"""What scorers round a network have in common: pictures are preprocessed one by one on the CPU, by any thread, and
scored in batches on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from smpo.imaging.transfer import stack_on
from smpo.kinds import Runtime

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["Layout", "NetworkScorer", "Pixels", "Precision", "precision_facts"]

Layout = Callable[["Picture"], NDArray[Any]]
"""A picture -> `[3, P, P]` float32: what the network sees."""

Precision = Literal["fp32", "bf16", "fp16"]
_WIDE = ("logit_scale", "inv_freq")
"""Tensors that stay in float32: a temperature and angles of which no digit can be spared."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Pixels:
    """A layout that returns tensors. It holds no weights, so it may outlive its scorer."""

    layout: Layout

    def __call__(self, picture: Picture) -> Tensor:
        return torch.from_numpy(self.layout(picture))


class NetworkScorer:
    """The base of a `kinds.Scorer` in `precision`. Subclasses register networks by `_hold` and define `_score`.

    `preprocess(picture)` is pure and may run in threads, ahead of `score`; `scorer(pictures, prompts)` is the same as
    `scorer.score([preprocess(picture) for picture in pictures], prompts)`.
    """

    def __init__(self, preprocessing: Layout, *, key: str, runtime: Runtime, precision: Precision = "fp32") -> None:
        self.key = key
        self.preprocessing = preprocessing
        self.preprocess = Pixels(preprocessing)
        self.dtype = _DTYPES[precision]
        self._device = torch.device(runtime.device)
        self._batch = runtime.batch
        self._held: list[str] = []

    def __call__(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Tensor:
        """`[N]` float32 on the CPU."""
        _alike(pictures, prompts)
        parts = [
            self.score([self.preprocess(picture) for picture in pictures[some]], prompts[some])
            for some in self._batches(len(pictures))
        ]
        return torch.cat(parts) if parts else torch.empty(0)

    @torch.no_grad()
    def score(self, inputs: Sequence[Tensor], prompts: Sequence[str]) -> Tensor:
        """`inputs`: of `preprocess`, one for each prompt. `[N]` float32 on the CPU."""
        _alike(inputs, prompts)
        parts = [
            self._score(self._sent(inputs[some]), prompts[some]).float().cpu() for some in self._batches(len(inputs))
        ]
        return torch.cat(parts) if parts else torch.empty(0)

    def to(self, device: torch.device | str) -> None:
        """Move the networks. Scores are computed on the device where they are."""
        self._device = torch.device(device)
        for name in self._held:
            getattr(self, name).to(self._device)

    def _score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """`pixels [N, 3, P, P]` in the scorer's precision, on its device -> `[N]`."""
        raise NotImplementedError

    def _hold(self, name: str, network: Any, dtype: torch.dtype | None = None) -> None:
        """Keep a network as attribute `name`: frozen, in evaluation mode, in the scorer's precision or `dtype`."""
        network = network.requires_grad_(False).eval()
        for place, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if tensor.is_floating_point() and not place.endswith(_WIDE):
                tensor.data = tensor.data.to(dtype or self.dtype)
        setattr(self, name, network.to(self._device))
        self._held.append(name)

    def _sent(self, inputs: Sequence[Tensor]) -> Tensor:
        return stack_on(self._device, inputs).to(self.dtype)

    def _batches(self, count: int) -> Iterator[slice]:
        return (slice(start, start + self._batch) for start in range(0, count, self._batch))


def precision_facts(precision: Precision) -> Mapping[str, str]:
    """For a scorer's key: scores of two precisions must not mix. Nothing for float32, whose keys were made before
    there was a choice."""
    return {} if precision == "fp32" else {"precision": precision}


def _alike(pictures: Sequence[Any], prompts: Sequence[str]) -> None:
    if len(pictures) != len(prompts):
        raise ValueError(f"{len(pictures)} pictures for {len(prompts)} prompts")
