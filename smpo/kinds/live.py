"""What live things must be able to do: the protocols between the engine and all that has weights or files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from smpo.kinds.values import Conditioning, Pair, Picture, Placement
    from smpo.maths.inversion import Noised
    from smpo.maths.schedule import NoiseSchedule

__all__ = ["Denoiser", "Draws", "Invert", "PairTable", "Predict", "Predictors", "ReferenceCache", "Scorer"]


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


class Invert(Protocol):
    """The inversion that one run calls, with what it keeps from update to update (`Inversion.bind`)."""

    def __call__(self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws) -> Noised: ...


class ReferenceCache(Protocol):
    """Outputs of the frozen reference by micro-batch, bit for bit, kept from one run to the next."""

    def get(self, key: str) -> Tensor | None: ...
    def put(self, key: str, output: Tensor) -> None: ...


@dataclass(frozen=True)
class Predictors:
    """The two networks an inversion may follow, with the batch's prompts and, on demand, with empty ones."""

    policy: Predict
    reference: Predict
    policy_empty: Predict | None = None
    reference_empty: Predict | None = None
    levels: int = 1
    """Timesteps of each image: rows run over sides, then levels, then pairs. Those of one image may share their way."""
    pictures: Sequence[str] = ()
    """Name of each row's image as it is shown, with its prompt; the same at every visit. Empty where unknown."""


class Denoiser(Protocol):
    """A model as the engine uses it. Only its family knows what a UNet is."""

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

    def encode_pictures(self, pictures: Sequence[Picture], placements: Sequence[Placement]) -> dict[str, Tensor]:
        """`mean` and `std` `[N, C, H, W]` of the scaled latents, plus rows that belong in the conditioning.

        All placements of a call have one size. Optional, as for a `Scorer`: `preprocess(picture, placement)` is the
        work on the CPU for one picture, by any thread; `encode_inputs(inputs)` takes what it returned for each."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Rows of conditioning, one per prompt, no gradient."""
        ...

    def predict(
        self, x: Tensor, t: Tensor, cond: Conditioning, *, reference: bool = False, inverting: bool = False
    ) -> Tensor:
        """The network's output `[N, C, H, W]` in its own parameterisation, float32.

        `reference=True` is the frozen original: a second network, or the same one with its adapter off. Policy and
        reference run through the same kernels and precision, so equal weights give equal outputs, with gradients on
        and off. `inverting`: a pass of an inversion, without gradients and compared with no other pass, so that it may
        take kernels of its own.
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
        size: tuple[int, int] | None = None,
    ) -> list[Picture]:
        """One finished sample a prompt. Sample i depends on `prompts[i]` and `seeds[i]`, not on the batch.

        `size`: height and width, None for the model's own. Only models that are `sized` have another one."""
        ...

    def save(self, folder: Path) -> list[str]:
        """Write what others load (`from_pretrained` folder or LoRA file); returns lines that say how to load it."""
        ...


class Scorer(Protocol):
    """A reward in memory, frozen. One that looks at pictures through an embedding may show it: `embed(pictures)`,
    `[N, D]` on the CPU; evaluation then measures how far pictures have moved in it. One that is made of others shows
    them as `parts`, and makes its score of theirs, `combined([K, N])`: what is known of them isn't computed again.

    Optional, so that preparation runs beside the network: `preprocess(picture)` is the scorer's work on the CPU for one
    picture, a pure function that holds no weights and may run in any thread; `score(inputs, prompts)` takes what it
    returned, one for each prompt, and returns what the call returns. `to(device)` moves the weights; a scorer without
    it is loaded again when it is needed again. `dtype`: of the weights, for the record."""

    key: str
    """Identifies weights and preprocessing: scores are cached under it."""

    def __call__(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Tensor:
        """`[N]` float32 on the CPU; higher is better. Deterministic, and independent of what else is in the batch."""
        ...


class PairTable(Protocol):
    """Preference pairs in memory or on disk. Images are decoded on request.

    With `threads = True`, several threads call `picture` at once; otherwise one does."""

    digest: str
    """Content hash of pairs and votes: what was trained on."""
    report: Mapping[str, Any]
    """Counts of rows, pairs, votes, ties and drops by reason; goes to `data_report.json` and the tracker."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...

    def picture(self, image_id: str) -> Picture: ...
