"""Values that travel: from the data to the engine, from the machine to a recipe, from the engine to an objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

    Picture = Image.Image | np.ndarray
    """One finished sample: an image, or in the plane world a point `[2]`."""

__all__ = [
    "Conditioning",
    "ObjectiveOut",
    "Pair",
    "PairBatch",
    "Placement",
    "Predicted",
    "Prompt",
    "Runtime",
    "Sampling",
    "ScoreStats",
]


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


@dataclass(frozen=True)
class Predicted:
    """The four predictions of a micro-batch, and what they should have been.

    `target`, `policy`, `reference`: `[2B, C, H, W]`, winners first, all in the space in which errors are compared
    (epsilon, unless the family names another). Only `policy` carries gradients. `t`: `[2B]`.
    """

    target: Tensor
    policy: Tensor
    reference: Tensor
    t: Tensor
    abar: Tensor | None = None
    """`[2B]`: alpha-bar at `t`."""
    levels: int = 1
    """Timesteps a pair: rows run over sides, then levels, then pairs, `[2, levels, B]` flattened."""
    desirable: Tensor | None = None
    """`[2B]`, for single labelled images; None for pairs."""
    means: Mapping[str, Tensor] = field(default_factory=dict)
    """Means of `Objective.batch_means` over the whole update."""

    def swapped(self) -> Predicted:
        """Loser first: what an objective sees when the pair is read the other way round."""

        def swap(x: Tensor) -> Tensor:
            return x.roll(len(x) // 2, 0)

        return replace(
            self,
            target=swap(self.target),
            policy=swap(self.policy),
            reference=swap(self.reference),
            t=swap(self.t),
            abar=None if self.abar is None else swap(self.abar),
            desirable=None if self.desirable is None else swap(self.desirable),
        )

    def gaps(self) -> tuple[Tensor, Tensor]:
        """`(winner, loser)`, each `[B]`: policy error minus reference error, without cancellation (method 1.2)."""
        from smpo.maths.losses import error_gap

        winner, loser = error_gap(self.target, self.policy, self.reference).chunk(2)
        return winner, loser

    def errors(self) -> tuple[Tensor, Tensor]:
        """`(winner, loser)`, each `[B]`: the policy's element-mean squared errors."""
        from smpo.maths.losses import denoising_error

        winner, loser = denoising_error(self.target, self.policy).chunk(2)
        return winner, loser


@dataclass(frozen=True)
class ObjectiveOut:
    """`loss` `[B]`, unreduced, so the engine owns averaging; `margin` `[B]`, positive when the policy moved towards
    the winner; `metrics`: more named `[B]` values worth a curve."""

    loss: Tensor
    margin: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
