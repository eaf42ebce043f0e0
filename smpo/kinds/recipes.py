"""Kinds that are recipes: model, data, reward, prompts. Their `load` brings something live into memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from smpo.registry.component import Component

if TYPE_CHECKING:
    from smpo.kinds.live import Denoiser, PairTable, Scorer
    from smpo.kinds.values import Prompt, Runtime

__all__ = ["Model", "ModelFacts", "PairData", "PromptSet", "Pruner", "Reward", "Sampler"]


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

    def read(self) -> Mapping[str, Sequence[str]]:
        """Which files are read of a repository on the hub: the setting that names it -> globs. None given: all."""
        return {}

    def tflop(self) -> float | None:
        """What scoring one picture with its prompt takes, for `smpo plan`; None where unknown. No torch."""
        return None if self.learned else 0.0


@dataclass(frozen=True)
class ModelFacts:
    """What can be known of a model without loading it; None where it can't. `smpo plan` multiplies these."""

    weights: str
    timesteps: int | None = 1000
    resolution: int | None = None
    parameters: int | None = None
    trainable: int | None = None
    """Of them, or of the adapter."""
    adapter: bool = False
    """Whether an adapter is trained and the network itself stays as it is."""
    wide: bool = False
    """Whether it then stays in float32 whatever the precision, as DoRA wants it."""
    attention_alone: bool = True
    """Whether an adapter sits on attention layers alone."""
    forward_tflop: float | None = None
    step: int | None = None
    """Pixels of which every side of a picture is a multiple."""


class Model(Component):
    """A recipe for a text-to-image model: plane, shapes, SD 1.5, SDXL."""

    kind: ClassVar[str] = "model"
    sized: ClassVar[bool] = False
    """Whether it draws pictures of other sizes than its own (`Denoiser.sample`)."""

    @abstractmethod
    def load(self, runtime: Runtime) -> Denoiser:
        """Policy and frozen reference in memory. Raises `MachineError` when the weights aren't here."""

    @abstractmethod
    def facts(self) -> ModelFacts:
        """Reads at most configuration files. Never imports torch."""

    def check(self) -> str | None:
        """Why this model can't be loaded here, in a sentence, or None. Never imports torch."""
        return None

    def read(self) -> Mapping[str, Sequence[str]]:
        """Which files are read of a repository on the hub: the setting that names it -> globs. None given: all."""
        return {}


class PairData(Component):
    """A recipe for a table of preference pairs."""

    kind: ClassVar[str] = "data"
    noun: ClassVar[str] = "data set"

    @abstractmethod
    def load(self, runtime: Runtime, report: Path | None = None) -> PairTable:
        """Read, check and count. Dropped pairs are listed in `report`, when given."""

    def check(self) -> str | None:
        """Why this data can't be read here, in a sentence, or None."""
        return None

    def remedy(self) -> str:
        """The remedy for the reason that `check` returns."""
        return "point `data.path` at the files: `--set data.path=FOLDER`"

    def size(self) -> int | None:
        """Number of pairs, or an upper bound, where it is cheap to know (parquet metadata)."""
        return None

    @property
    def sequential(self) -> bool:
        """Whether pictures are read in storage order alone, because another order would fetch whole files for each:
        then all that a run visits is scored and encoded before its first update."""
        return False

    @property
    def bucketed(self) -> bool:
        """Whether pairs keep about their shape, instead of being cut to squares."""
        return False

    def sizes(self, resolution: int) -> list[tuple[int, int]]:
        """Heights and widths that pairs are cut to; both images of a pair to one of them. Never imports torch."""
        return [(resolution, resolution)]


class PromptSet(Component):
    """Prompts that models are judged on."""

    kind: ClassVar[str] = "prompts"
    noun: ClassVar[str] = "prompt set"

    @property
    @abstractmethod
    def role(self) -> Literal["training", "tuning", "untouched"]:
        """What the set may be used for; numbers that are reported come from untouched sets."""

    @abstractmethod
    def load(self) -> list[Prompt]:
        """All prompts of the set, in a fixed order. Raises `MachineError` when they can't be read."""

    def is_local(self) -> bool:
        """Whether `load` finds the prompts on this machine. A plan counts them then, and fetches nothing."""
        return self.check() is None

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
