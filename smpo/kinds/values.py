"""Values that travel: from the data to the engine, from the machine to a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

    Picture = Image.Image | np.ndarray
    """One finished sample: an image, or in the plane world a point `[2]`."""

__all__ = [
    "Conditioning", "Pair", "PairBatch", "Placement", "Prompt", "Runtime", "Sampling", "ScoreStats",
]  # fmt: skip


@dataclass(frozen=True)
class Runtime:
    """Where a recipe is brought to life. Nothing in it may change a result beyond rounding."""

    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    cache: Path = Path(".smpo-cache")
    batch: int = 32
    """How many images a frozen network sees at once while scoring or encoding."""
    workers: int = 0
    """Threads that decode and preprocess pictures ahead of a network; 0: none, one picture after another."""
    gradient_checkpointing: bool | Literal["selective"] = False
    reference: bool = True
    """Whether training runs the frozen reference. Otherwise no second copy of the weights is held, and a model loads
    it only to sample pictures for comparison."""
    offload_reference: bool = False
    """Keep the second copy in the host's memory and copy its blocks to the device while it computes."""
    vae_slicing: bool | None = None
    """Let the VAE see one picture at a time; null: from 512 pixels on."""
    vae_tiling: bool = False
    """Decode pictures in tiles that are larger than the VAE was trained on."""
    compile: bool = False
    channels_last: bool = False
    attention: Literal["auto", "cudnn", "flash", "efficient", "math"] = "auto"
    shadow_weights: bool = False
    """See `runtime` in the spec: how policy and reference compute, alike."""


@dataclass(frozen=True)
class Conditioning:
    """What a network is conditioned on, row by row. Opaque to the engine.

    `tensors` maps names that only the family understands (`text`, `pooled`, `size_ids`, `condition`) to `[N, ...]`.
    """

    tensors: Mapping[str, Tensor]

    def take(self, rows: Tensor) -> Conditioning:
        """The rows with these indices, in this order."""
        return Conditioning({name: tensor[rows] for name, tensor in self.tensors.items()})

    def doubled(self) -> Conditioning:
        """`[B] -> [2B]`: once for the winners, once for the losers."""
        return Conditioning({name: tensor.repeat(2, *[1] * (tensor.ndim - 1)) for name, tensor in self.tensors.items()})

    def merged(self, extra: Mapping[str, Tensor]) -> Conditioning:
        """With more tensors beside the present ones (SDXL's sizes and crops belong to the image, not the prompt)."""
        return Conditioning({**self.tensors, **extra})

    def to(self, device: Any) -> Conditioning:
        return Conditioning({name: tensor.to(device) for name, tensor in self.tensors.items()})


@dataclass(frozen=True)
class Placement:
    """How an image is laid onto what the model sees; the two images of a pair share one.

    `crop` is the position of the crop window along both axes, 0 = left/top, 0.5 = centre, 1 = right/bottom. `size` is
    the window's height and width in pixels; None: the model's own square.
    """

    crop: tuple[float, float] = (0.5, 0.5)
    flip: bool = False
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Pair:
    """Two images for one prompt, and how often people preferred the first.

    `winner` and `loser` are content ids of the images. `share` in [0.5, 1] is the share of the votes for the winner
    (0.5 = a tie, in storage order); `votes` is the number of votes.
    """

    id: str
    prompt: str
    winner: str
    loser: str
    share: float
    votes: int = 1


@dataclass(frozen=True)
class ScoreStats:
    """A reward over the *whole* table, both images of every pair; extremes are stored beside the scores."""

    low: float
    high: float
    count: int
    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True)
class Prompt:
    """One evaluation prompt. `group` is the cluster for intervals: prompts of a group are not independent."""

    text: str
    group: str = ""
    category: str = ""


@dataclass(frozen=True)
class Sampling:
    """What an objective wants to be shown. Left alone: pairs, both images with the pair's prompt."""

    desirable: float | None = None
    """Show single images instead of pairs, this share of them desirable (preferred at least once)."""
    prefixes: tuple[str, str] | None = None
    """Words put before the prompts of preferred and of dispreferred images; ties get none."""

    @property
    def paired(self) -> bool:
        return self.desirable is None


@dataclass(frozen=True)
class PairBatch:
    """One micro-batch as the engine sees it: everything frozen networks could compute is already computed.

    `mean`, `std`: `[2B, C, H, W]` moments of the scaled latents, winners first. `position`: `[B]` the pair's place in
    the endless stream of training samples; all randomness is keyed by it, so results don't depend on how samples are
    spread over devices and micro-batches. `p`: `[B]` smoothed probability that the winner wins.

    `desirable`: `[2B]`, set when the two images of a row have nothing to do with each other (`Sampling.desirable`);
    each has its own timestep then, and p is 1. `unconditional`: the same rows with the empty prompt, for inversions
    with guidance. `pictures`: `[2B]` names of the images as they are shown (mirrored or not) with their prompts, the
    same at every visit; empty where no two visits are alike.
    """

    ids: Sequence[str]
    position: Tensor
    mean: Tensor
    std: Tensor
    conditioning: Conditioning
    p: Tensor
    desirable: Tensor | None = None
    unconditional: Conditioning | None = None
    pictures: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def repeated(self, times: int) -> PairBatch:
        """Each pair so many times, the whole batch one after another. Moments of latents, already drawn from, aren't
        repeated."""
        if times == 1:
            return self
        one = self.desirable
        return replace(
            self,
            ids=[*self.ids] * times,
            position=self.position.repeat(times),
            p=self.p.repeat(times),
            desirable=None if one is None else one.reshape(2, -1).repeat(1, times).flatten(),
        )
