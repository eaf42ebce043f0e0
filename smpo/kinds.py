"""The nouns of preference optimisation: what a spec selects, and what the engine may ask of it.

Two sorts of thing live here. *Kinds* are the base classes of components: frozen pydantic objects that are their own
configuration. Light ones (smoothing, inversion, objective) are called directly; heavy ones (model, data, reward) are
recipes whose `load` brings something live into memory. *Protocols* say what those live things must be able to do.

Shapes: `B` pairs, `N = 2B` images (all winners, then all losers), `C H W` latent axes. Nothing here imports torch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from smpo.registry.component import Component

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image
    from torch import Tensor, nn

    from smpo.maths.noising import Noised
    from smpo.maths.schedule import NoiseSchedule

    Picture = Image.Image | np.ndarray
    """One finished sample: an image, or in the plane world a point `[2]`."""

__all__ = [
    "HELD_TIMESTEPS", "Conditioning", "Denoiser", "Draws", "Inversion", "Model", "ModelFacts", "Objective",
    "ObjectiveOut", "Optimiser", "Pair", "PairBatch", "PairData", "PairTable", "Placement", "Predict", "Predicted",
    "Predictors", "Prompt", "PromptSet", "Reward", "Runtime", "Sampling", "ScoreStats", "Scorer", "Smoothing",
]  # fmt: skip


# ------------------------------------------------------------------------------------------------ values that travel


@dataclass(frozen=True)
class Runtime:
    """Where a recipe is brought to life. Nothing in it may change a result beyond rounding."""

    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    cache: Path = Path(".smpo-cache")
    batch: int = 32
    """How many images a frozen network sees at once while scoring or encoding."""
    gradient_checkpointing: bool = False
    reference: bool = True
    """Whether training asks the frozen original. When it doesn't, no second copy of the weights is held; a model
    that is asked for its reference nevertheless (to sample pictures for comparison) fetches it then."""
    offload_reference: bool = False
    """Keep the second copy in the CPU's memory and move it to the device for each of its passes."""
    vae_slicing: bool | None = None
    """Let the VAE see one picture at a time; null: from 512 pixels on."""


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
        return Conditioning(
            {name: tensor.repeat(2, *[1] * (tensor.ndim - 1)) for name, tensor in self.tensors.items()}
        )

    def merged(self, extra: Mapping[str, Tensor]) -> Conditioning:
        """With more tensors beside the present ones (SDXL's sizes and crops belong to the image, not the prompt)."""
        return Conditioning({**self.tensors, **extra})

    def to(self, device: Any) -> Conditioning:
        return Conditioning({name: tensor.to(device) for name, tensor in self.tensors.items()})


@dataclass(frozen=True)
class Placement:
    """How an image is laid onto the square the model sees; the two images of a pair share one.

    `crop` is the position of the crop window along both axes, 0 = left/top, 0.5 = centre, 1 = right/bottom.
    """

    crop: tuple[float, float] = (0.5, 0.5)
    flip: bool = False


@dataclass(frozen=True)
class Pair:
    """Two images for one prompt, and how often people preferred the first.

    `winner` and `loser` are content ids of the images. `share` in [0.5, 1] is the share of the votes for the winner
    (0.5 = a tie, in storage order); `votes` is how many people were asked.
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
    with guidance.
    """

    ids: Sequence[str]
    position: Tensor
    mean: Tensor
    std: Tensor
    conditioning: Conditioning
    p: Tensor
    desirable: Tensor | None = None
    unconditional: Conditioning | None = None

    def __len__(self) -> int:
        return len(self.ids)


# --------------------------------------------------------------------------------- protocols of live things


class Draws(Protocol):
    """Random numbers of a micro-batch, a pure function of (seed, stream name, sample position)."""

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        """`[B, *shape]` standard normal, float32, on the batch's device; row i depends on sample i alone."""
        ...

    def uniform(self, name: str) -> Tensor:
        """`[B]` in [0, 1), float64, on the CPU."""
        ...


class Predict(Protocol):
    """A network without gradients, in its own parameterisation, on some rows of the micro-batch.

    `x [n, C, H, W]`, `t [n]`, `rows [n]`: which rows of the batch these are, so that conditioning can be gathered.
    """

    def __call__(self, x: Tensor, t: Tensor, rows: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Predictors:
    """The two networks an inversion may follow, with the batch's prompts and, on demand, with empty ones."""

    policy: Predict
    reference: Predict
    policy_empty: Predict | None = None
    reference_empty: Predict | None = None


class Denoiser(Protocol):
    """Everything the engine may ask of a model. Nothing else in smpo knows what a UNet is."""

    schedule: NoiseSchedule
    device: torch.device
    policy: nn.Module
    """The network being trained. The engine may replace it by its wrapped twin (DDP)."""
    latent_shape: tuple[int, int, int]
    encoder_key: str
    """Identifies image and text encoders, resolution and preprocessing: caches are filed under it."""
    weights_key: str
    """Identifies the frozen reference with its encoders, scheduler and resolution, by content."""
    origin: Mapping[str, str]
    """Commits on the hub by part (`model`, `vae`), for what came from there; goes to the lock file."""

    def encode_pictures(
        self, pictures: Sequence[Picture], placements: Sequence[Placement]
    ) -> dict[str, Tensor]:
        """`mean` and `std` `[N, C, H, W]` of the scaled latents, plus rows that belong in the conditioning."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Rows of conditioning, one per prompt, no gradient."""
        ...

    def predict(self, x: Tensor, t: Tensor, cond: Conditioning, *, reference: bool = False) -> Tensor:
        """The network's output `[N, C, H, W]` in its own parameterisation, float32.

        `reference=True` is the frozen original: a second network, or the same one with its adapter off. Policy and
        reference run through the same kernels and precision, so equal weights give equal outputs.
        """
        ...

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        guidance: float,
        steps: int,
        reference: bool = False,
    ) -> list[Picture]:
        """One finished sample a prompt. Sample i depends on `prompts[i]` and `seeds[i]`, not on the batch."""
        ...

    def save(self, folder: Path) -> list[str]:
        """Write what others load (`from_pretrained` folder or LoRA file); returns lines that say how to load it."""
        ...


class Scorer(Protocol):
    """A reward in memory, frozen."""

    key: str
    """Identifies weights and preprocessing: scores are cached under it."""

    def __call__(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Tensor:
        """`[N]` float32 on the CPU; higher is better. Deterministic, and independent of what else is in the batch."""
        ...


class PairTable(Protocol):
    """Preference pairs in memory or on disk. Images are decoded on request."""

    digest: str
    """Content hash of pairs and votes: what was trained on."""
    report: Mapping[str, Any]
    """Counts of rows, pairs, votes, ties and drops by reason; goes to `data_report.json` and the tracker."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...

    def picture(self, image_id: str) -> Picture: ...


# ------------------------------------------------------------------------------------------------ what objectives see


@dataclass(frozen=True)
class Predicted:
    """The four predictions of a micro-batch, and what they should have been.

    `target`, `policy`, `reference`: `[2B, C, H, W]`, winners first, all in the space in which errors are compared
    (epsilon, unless the family says otherwise). Only `policy` carries gradients. `t`: `[2B]`.
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
    """What `Objective.batch_means` asked for, averaged over the whole update."""

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


# ------------------------------------------------------------------------------------------------ kinds of component


HELD_TIMESTEPS = 4
"""At how many timesteps held-out pairs are looked at."""


class Smoothing(Component):
    """How sure are we that the labelled winner is the better image?

    The vote says yes; annotators differ, and a reward model may know by how much. Pure and cheap: called once, on
    scores that were computed before training.
    """

    kind: ClassVar[str] = "smoothing"
    needs_reward: ClassVar[bool] = True

    @property
    def certain(self) -> bool:
        """Whether p is always 0, 1, or 1/2 for a tie."""
        return False

    @abstractmethod
    def __call__(self, winner: Tensor, loser: Tensor, share: Tensor, stats: ScoreStats) -> Tensor:
        """`[M]` probability in [0, 1] that the winner wins.

        `winner`, `loser`: raw reward scores `[M]` (NaN when `needs_reward` is false); `share`: `[M]` share of votes.
        0.5 means the pair says nothing; below 0.5 the reward disagrees with the vote. Promises: monotone in
        `winner - loser`; swapping the pair gives one minus the result.
        """


class Inversion(Component):
    """How a clean latent becomes the noisy one on which policy and reference are compared."""

    kind: ClassVar[str] = "inversion"

    @property
    def needs_reference(self) -> bool:
        """Whether the frozen original is asked."""
        return False

    @property
    def needs_unconditional(self) -> bool:
        """Whether the networks are asked with empty prompts too (guidance)."""
        return False

    @abstractmethod
    def __call__(
        self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws
    ) -> Noised:
        """`Noised(x_t, noise)`, both `[2B, C, H, W]`, with `x_t = alpha(t) x0 + sigma(t) noise` exactly.

        `t` `[2B]` may differ per pair; a winner and its loser share theirs. Randomness comes only from `draws`.
        """

    def expected_passes(self, timesteps: int, t_min: int, t_max: int) -> float:
        """Mean network passes per image over uniform t; `smpo plan` multiplies by it. No torch."""
        return 0.0

    def max_steps(self) -> int:
        """Grid steps, for the check that the model's schedule is that long."""
        return 0


class Objective(Component):
    """Turns the predictions for a pair into one loss.

    Pure: no parameters, no state. What it needs beyond the predictions it declares, and the loader and the engine
    provide it without knowing its name: other samples (`sampling`), several timesteps a pair (`levels_per_pair`),
    averages over the whole update (`batch_means`), no reference (`needs_reference`).

    For preference objectives p = 0.5 at margin 0 gives zero gradient, and equal policy and reference give a known
    loss: `at_reference` (ln 2 for the logistic family), which the engine asserts at step 0.
    """

    kind: ClassVar[str] = "objective"
    needs_reference: ClassVar[bool] = True
    needs_means: ClassVar[bool] = False
    """Whether `batch_means` has something to say; it costs one more pass of the policy, without gradients."""
    uses: ClassVar[Literal["size", "side"]] = "side"
    """Of p: how far it is from 1/2, or only which side of it."""

    @property
    def at_reference(self) -> float | None:
        """The loss of every pair while policy and reference are equal, if it is always the same."""
        return None

    def levels_per_pair(self) -> int:
        """Timesteps at which each pair is looked at in one loss."""
        return 1

    def sampling(self) -> Sampling:
        """What the loader should show."""
        return Sampling()

    @abstractmethod
    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut: ...

    def batch_means(self, predicted: Predicted, p: Tensor) -> Mapping[str, Tensor]:
        """Values `[B]` whose means over all pairs of the update, on all devices, the loss depends on."""
        return {}

    def doubts(self, smoothing: Smoothing, inversion: Inversion) -> Iterable[str]:
        """What `smpo plan` should say about this company, a sentence each."""
        return ()


class Optimiser(Component):
    """Which rule turns gradients into steps. The learning rate and its schedule belong to `train`."""

    kind: ClassVar[str] = "optimiser"

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer: ...


class Reward(Component):
    """A recipe for a scorer: which weights, which revision, which preprocessing."""

    kind: ClassVar[str] = "reward"
    learned: ClassVar[bool] = True
    """False for closed-form judges."""

    @abstractmethod
    def load(self, runtime: Runtime) -> Scorer:
        """Bring the model into memory, frozen, in evaluation mode, on `runtime.device`."""

    def check(self) -> str | None:
        """Why this reward can't be loaded here, in a sentence, or None. Never imports torch."""
        return None


@dataclass(frozen=True)
class ModelFacts:
    """What can be known of a model without loading it; None where it can't. `smpo plan` multiplies these."""

    weights: str
    timesteps: int | None = 1000
    resolution: int | None = None
    parameters: int | None = None
    trainable: int | None = None
    forward_tflop: float | None = None


class Model(Component):
    """A recipe for a text-to-image model: plane, shapes, SD 1.5, SDXL."""

    kind: ClassVar[str] = "model"

    @abstractmethod
    def load(self, runtime: Runtime) -> Denoiser:
        """Policy and frozen reference in memory. Raises `MachineError` when the weights aren't here."""

    @abstractmethod
    def facts(self) -> ModelFacts:
        """Reads at most configuration files. Never imports torch."""

    def check(self) -> str | None:
        """Why this model can't be loaded here, in a sentence, or None. Never imports torch."""
        return None


class PairData(Component):
    """A recipe for a table of preference pairs."""

    kind: ClassVar[str] = "data"

    @abstractmethod
    def load(self, runtime: Runtime, report: Path | None = None) -> PairTable:
        """Read, check and count. Dropped pairs are listed in `report`, when given."""

    def check(self) -> str | None:
        """Why this data can't be read here, in a sentence, or None."""
        return None

    def size(self) -> int | None:
        """Pairs, where a cheap look tells (parquet metadata)."""
        return None


class PromptSet(Component):
    """Prompts that models are judged on."""

    kind: ClassVar[str] = "prompts"

    @property
    @abstractmethod
    def role(self) -> Literal["training", "tuning", "untouched"]:
        """What the set may be used for; numbers that are reported come from untouched sets."""

    @abstractmethod
    def load(self) -> list[Prompt]:
        """All prompts of the set, in a fixed order. Raises `MachineError` when they can't be read."""

    def check(self) -> str | None:
        """Why the prompts can't be read here, in a sentence, or None."""
        return None


class Sampler(Component):
    """Which settings a sweep tries next: a sampler of Optuna."""

    kind: ClassVar[str] = "sampler"
    several: ClassVar[bool] = True
    """Whether it can serve several objectives at once."""
    walks: ClassVar[bool] = False
    """Whether it visits a finite list of settings, and is done when it has."""

    @abstractmethod
    def build(self, seed: int, grid: Mapping[str, Sequence[Any]] | None) -> Any:
        """An `optuna.samplers.BaseSampler`.

        Called anew before each trial with a seed made of the study's and the number of trials before, so that a sweep
        which was interrupted goes on as it would have gone on. `grid` holds the values of every parameter where the
        space is a finite grid without branches, else None.
        """

    def check(self, grid: Mapping[str, Sequence[Any]] | None) -> str | None:
        """Why it can't search this space, in a sentence, or None."""
        return None


class Pruner(Component):
    """When a sweep gives up on a trial: a pruner of Optuna."""

    kind: ClassVar[str] = "pruner"
    paired: ClassVar[bool] = False
    """Whether it compares scores prompt by prompt, rather than one figure a rung."""

    @abstractmethod
    def build(self) -> Any:
        """An `optuna.pruners.BasePruner`. Steps are optimiser updates (prompts, where `paired`)."""
