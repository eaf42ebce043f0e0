"""smpo's own loop (`smpo.engine.loop.fit`) on the same networks and pairs, in its modes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor

from smpo.app.build.inversion_cache import cached_inversion
from smpo.components.inversions import ReNoise
from smpo.components.objectives import SmPO
from smpo.engine.forward_batches import ForwardBatches
from smpo.engine.learning_rate import LearningRate
from smpo.engine.loop import Session, fit
from smpo.engine.noise_and_timesteps import StepConfig
from smpo.families.dtypes import store_in_half
from smpo.families.pipeline_adapters import PipelineAdapter, SDXLPipelineAdapter
from smpo.families.policy_reference import Arithmetic, PolicyAndReference
from smpo.families.recompute import checkpoint
from smpo.families.speed import AS_TORCH_DOES, Speed
from smpo.families.unet import UNetDenoiser
from smpo.kinds import Conditioning, PairBatch, Runtime
from speed.archs import BETA, GRID, World

CONVENTION = {"0.20": "lt_0_22", "0.22": "ge_0_22"}
Phase = Callable[[str], Any]


@dataclass(frozen=True)
class Mode:
    """How smpo works in an arm, mostly as fields of `runtime` say it."""

    micro: int
    """Pairs in a pass with gradients (`micro_batch`)."""
    rows: int | None = None
    """Images in a pass without gradients (`inversion_batch`); None: as many as in a pass with them."""
    window: int | None = None
    """Pairs that are inverted together, None for all of the update."""
    timesteps: int = 1
    frozen: bool = False
    """Invert along the frozen reference, and cache what was found."""
    changes: tuple[tuple[str, Any], ...] = ()
    """Other settings of the inversion."""
    even: bool = False
    """Passes of one shape."""
    speed: Speed = AS_TORCH_DOES
    shadow: bool = False
    checkpointing: bool | Literal["selective"] = False


class FixedDraws:
    """Draws that are read off a list instead of being drawn: the same noise and timesteps for all arms."""

    def __init__(self, world: World, positions: Tensor, timesteps: int) -> None:
        self.positions = positions.tolist()
        self._world, self._timesteps = world, timesteps

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        return self._world.noise[int("loser" in name), self.positions].to(self._world.device)

    def uniform(self, name: str) -> Tensor:
        """The listed timesteps; where a pair has several, as many places within a stratum, evenly spread."""
        if self._timesteps > 1:
            return (torch.tensor(self.positions, dtype=torch.float64) + 0.5) / len(self._world.t)
        return (self._world.t[self.positions].double() + 0.5) / 1000


class Ours:
    """`update()` is one update of smpo's loop over all pairs of the world, inside `applied()`."""

    def __init__(self, world: World, grid: str, precision: Any, mode: Mode, cache: Path | None = None) -> None:
        self.world, self.mode = world, mode
        if precision != "fp32":
            store_in_half(world.reference, {"fp16": torch.float16, "bf16": torch.bfloat16}[precision])
        stack = (PipelineAdapter if world.arch == "sd15" else SDXLPipelineAdapter)(
            world.pipeline, world.images.shape[-1]
        )
        networks = _networks(world, precision, mode)
        self.denoiser = UNetDenoiser(stack, networks, keys=("bench", "bench"), opening=("", ""), origin={})
        inversion = ReNoise(
            steps=GRID[world.arch],
            convention=CONVENTION[grid],  # type: ignore[arg-type]
            start="alpha0",
            by="reference" if mode.frozen else "policy",
            **dict(mode.changes),
        )
        recall = None
        if mode.frozen and cache is not None:
            inversion, recall = self._remembered(inversion, precision, cache)
        self.seen: list[Any] = []
        self.session = Session(
            denoiser=self.denoiser,
            objective=SmPO(beta=BETA[world.arch], gamma=10.0),
            inversion=inversion,
            optimiser=world.optimiser,
            learning_rate=LearningRate(0.0, 10**9),
            accelerator=_Alone(),
            batches=lambda _step: self._batches(),
            draws=lambda position: FixedDraws(world, position, mode.timesteps),  # type: ignore[arg-type, return-value]
            settings=StepConfig(
                seed=0,
                t_min=0,
                t_max=999,
                posterior=True,
                timesteps=mode.timesteps,
                passes=ForwardBatches(mode.rows, even=mode.even),
            ),
            steps=10**9,
            pairs_per_update=len(world.t),
            clip=1.0,
            window=mode.window,
            reference_cache=recall,
            scaler=torch.amp.GradScaler(world.device.type, enabled=precision == "fp16"),
        )
        if world.moments is None:
            world.moments = encode(world, 2 * mode.micro)
        self._number = itertools.count(1)  # not 0: there the loop asserts that policy and reference are equal
        self._undo()

    @property
    def micro_batch(self) -> int:
        """Pairs in a pass with gradients by now: the loop halves them when memory runs out."""
        return min(self.mode.micro, self.session.micro_batcher.pairs or self.mode.micro)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The networks, which all arms share, as this arm wants them."""
        for network in (self.world.policy, self.world.reference):
            self.mode.speed.prepare(network)
        self._lay_out(self.mode.speed.layout)
        checkpoint(self.world.policy, self.mode.checkpointing)
        try:
            yield
        finally:
            self._undo()

    def _undo(self) -> None:
        self.world.policy.disable_gradient_checkpointing()  # type: ignore[operator]
        if self.mode.speed == AS_TORCH_DOES:
            return
        for network in (self.world.policy, self.world.reference):
            network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self._lay_out(torch.contiguous_format)

    def _lay_out(self, layout: torch.memory_format) -> None:
        """The optimiser's state like the weights: its fused kernel takes no other layout."""
        if self.mode.speed.layout is torch.contiguous_format:
            return
        for state in self.world.optimiser.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.ndim == 4:
                    state[name] = value.contiguous(memory_format=layout)

    def update(self, phase: Phase, *, step: bool = True) -> int:
        """Runs one update; returns how many losses it had."""
        session = self.session
        with watched(session, phase, step=step):
            next(iter(fit(session, next(self._number))))
        return len(self.world.t) * self.mode.timesteps

    def some(self) -> tuple[Tensor, Tensor, Conditioning]:
        """A network's inputs of one pass with gradients: latents, timesteps, conditioning of a micro-batch."""
        batch = next(self._batches())
        return batch.mean, self.world.t[batch.position].repeat(2).to(batch.mean.device), batch.conditioning

    def _batches(self) -> Iterator[PairBatch]:
        mean, std, told = self.world.moments
        for some in torch.arange(len(self.world.t)).split(self.mode.micro):
            rows = some.to(self.world.device)
            yield PairBatch(
                ids=[str(i) for i in some.tolist()],
                position=some,
                mean=mean[:, rows].flatten(0, 1),
                std=std[:, rows].flatten(0, 1),
                conditioning=Conditioning({name: tensor[rows.repeat(2)] for name, tensor in told.items()}),
                p=self.world.p[some].to(self.world.device),
            )

    def _remembered(self, inversion: Any, precision: str, cache: Path) -> Any:
        runtime = Runtime(precision=precision, device=str(self.world.device), cache=cache)
        spec = SimpleNamespace(
            runtime=SimpleNamespace(reuse_inversions=True),
            inversion=inversion,
            train=SimpleNamespace(seed=0, prompt_dropout=0.0),
        )
        return cached_inversion(spec, self.denoiser, SimpleNamespace(digest="bench"), runtime)  # type: ignore[arg-type]


def encode(world: World, size: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The caching pass, `size` images at once: moments `[2, P, ...]` of all images and rows of all prompts."""
    with torch.no_grad():
        found = [
            world.vae.encode(part.to(world.device)).latent_dist
            for part in world.images.transpose(0, 1).flatten(0, 1).split(size)
        ]
        text = [world.encoded(part.to(world.device)) for part in world.tokens.split(size)]
    mean, std = (
        torch.cat([getattr(one, name) * world.scale for one in found]).unflatten(0, (2, -1)) for name in ("mean", "std")
    )
    return mean, std, {name: torch.cat([one[name] for one in text]) for name in text[0]}


def _networks(world: World, precision: Any, mode: Mode) -> PolicyAndReference:
    """Shared by arms that want the same: a 16-bit copy of SDXL's policy is 5 GB, and there are eight arms."""
    key = (precision, mode.speed, mode.shadow, mode.micro)
    found = world.networks.get(key)
    if found is None:
        found = world.networks[key] = PolicyAndReference(
            world.policy, world.reference, arithmetic=Arithmetic(world.device, precision, 2 * mode.micro),
            speed=mode.speed, shadow=mode.shadow,
        )  # fmt: skip
    return found


class _Alone:
    """As much of an accelerator as the engine uses."""

    num_processes = 1

    @staticmethod
    def reduce(tensor: Tensor, reduction: str = "sum") -> Tensor:
        return tensor

    @staticmethod
    @contextmanager
    def no_sync(_model: Any) -> Iterator[None]:
        yield


@contextmanager
def watched(session: Session, phase: Phase, *, step: bool) -> Iterator[None]:
    """Phases of an update, by wrapping what the loop calls; `step=False` leaves weights and gradients as they are."""
    kept = session.inversion, session.denoiser, session.optimiser
    session.denoiser = _Asked(session.denoiser, phase)  # type: ignore[assignment]
    session.inversion = _During(session.inversion, phase, "inversion")  # type: ignore[assignment]
    session.optimiser = _Stepped(session.optimiser, phase, step)  # type: ignore[assignment]
    try:
        yield
    finally:
        session.inversion, session.denoiser, session.optimiser = kept


class _During:
    def __init__(self, inner: Any, phase: Phase, name: str) -> None:
        self._inner, self._phase, self._name = inner, phase, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, *arguments: Any) -> Any:
        with self._phase(self._name):
            return self._inner(*arguments)


class _Asked(_During):
    """A denoiser whose passes are the phases `policy` and `reference`, but for those of an inversion."""

    def __init__(self, inner: Any, phase: Phase) -> None:
        super().__init__(inner, phase, "")

    def predict(
        self, x: Tensor, t: Tensor, cond: Conditioning, *, reference: bool = False, inverting: bool = False
    ) -> Tensor:
        if inverting:
            return self._inner.predict(x, t, cond, reference=reference, inverting=True)  # type: ignore[no-any-return]
        with self._phase("reference" if reference else "policy"):
            return self._inner.predict(x, t, cond, reference=reference)  # type: ignore[no-any-return]


class _Stepped(_During):
    def __init__(self, inner: torch.optim.Optimizer, phase: Phase, wanted: bool) -> None:
        super().__init__(inner, phase, "optimiser")
        self._wanted = wanted

    def step(self, *arguments: Any, **named: Any) -> Any:
        with self._phase("optimiser"):
            return self._inner.step(*arguments, **named) if self._wanted else None

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        if self._wanted:
            self._inner.zero_grad(set_to_none=set_to_none)
