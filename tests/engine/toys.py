"""Stand-ins small enough to read: a two-layer denoiser on 1x2x2 latents and pairs drawn from a generator."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn

from smpo.engine.ema import ExponentialMovingAverage
from smpo.engine.learning_rate import LearningRate
from smpo.engine.loop import Session
from smpo.engine.noise_and_timesteps import StepConfig
from smpo.kinds import Conditioning, Inversion, Objective, PairBatch
from smpo.maths.draws import PositionDraws
from smpo.maths.schedule import NoiseSchedule

ROUNDING = 1e-9
"""By how much weights (about 1) of two `exact` sessions may differ after 5 updates in another order.

A gradient is a sum of at most 300 terms of at most 100 (beta / 2 times a difference of errors), each right to 2^-53:
to 300 * 100 * 1.1e-16 = 3e-12 in the worst case. An update divides by no less than 1e-3 and multiplies by lr = 1e-2,
so each adds 3e-11; the next gradients see weights that differ by so much. An error of the law itself, such as a pair
that counts twice, moves weights by a share of lr.
"""


class ToyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        flat = torch.cat([x.flatten(1), t[:, None] / 1000, c[:, None]], dim=1)
        return self.inner(flat).reshape(x.shape)


class ToyDenoiser:
    latent_shape = (1, 2, 2)
    encoder_key = "toy"
    device = torch.device("cpu")

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(seed)
        self.schedule = NoiseSchedule.scaled_linear()
        self.policy: nn.Module = ToyNet().to(dtype)
        self.reference = deepcopy(self.policy).requires_grad_(False)

    def predict(
        self, x: Tensor, t: Tensor, cond: Conditioning, *, reference: bool = False, inverting: bool = False
    ) -> Tensor:
        network = self.reference if reference else self.policy
        out: Tensor = network(x, t.to(x.dtype), cond.tensors["c"].to(x.dtype))
        return out


class SingleProcess:
    """As much of an accelerator as the engine uses."""

    num_processes = 1

    @staticmethod
    def reduce(tensor: Tensor, reduction: str = "sum") -> Tensor:
        return tensor

    @staticmethod
    def no_sync(model: nn.Module) -> object:
        import contextlib

        return contextlib.nullcontext()


def toy_batches(  # type: ignore[no-untyped-def]
    batch: int, micro: int, p: float | None = None, *, single: bool = False, empty: bool = False,
    dtype: torch.dtype = torch.float32,
):  # fmt: skip
    """`single`: each image stands for itself, with a label; `empty`: rows with the empty prompt come along."""

    def batches(step: int) -> Iterator[PairBatch]:
        for first in range(step * batch, (step + 1) * batch, micro):
            position = torch.arange(first, min(first + micro, (step + 1) * batch))
            draws = PositionDraws(7, position)
            winner, loser = draws.normal("w", (1, 2, 2)) + 0.5, draws.normal("l", (1, 2, 2)) - 0.5
            mean = torch.cat([winner, loser]).to(dtype)
            chance = draws.uniform("p").float() if p is None else torch.full((len(position),), p)
            cond = Conditioning({"c": draws.uniform("c").float().repeat(2)})
            desirable = torch.cat([draws.uniform("one"), draws.uniform("two")]) < 0.8 if single else None
            yield PairBatch(
                ids=[f"pair-{i}" for i in position.tolist()],
                position=position,
                mean=mean,
                std=mean * 0,
                conditioning=cond,
                p=chance * 0 + 1 if single else chance,
                desirable=desirable,
                unconditional=Conditioning({"c": cond.tensors["c"] * 0}) if empty else None,
            )

    return batches


def toy_session(
    objective: Objective, inversion: Inversion, *, steps: int = 5, batch: int = 8, micro: int = 8, seed: int = 0,
    ema: float | None = None, lr: float = 1e-2, p: float | None = None, exact: bool = False,
) -> Session:  # fmt: skip
    """`exact`: in float64, and AdamW divides no gradient by less than 1e-3, so a law about the order of work holds to
    `ROUNDING` on every processor. In float32 a weight whose gradient is rounding moves by lr in either direction."""
    dtype, eps = (torch.float64, 1e-3) if exact else (torch.float32, 1e-8)
    denoiser = ToyDenoiser(dtype=dtype)
    optimiser = torch.optim.AdamW(denoiser.policy.parameters(), lr=lr, eps=eps)
    return Session(
        denoiser=denoiser,  # type: ignore[arg-type]
        objective=objective,
        inversion=inversion,
        optimiser=optimiser,
        learning_rate=LearningRate(lr, steps),
        accelerator=SingleProcess(),
        batches=toy_batches(
            batch,
            micro,
            p,
            single=not objective.sampling().paired,
            empty=inversion.needs_unconditional,
            dtype=dtype,
        ),
        draws=lambda position: PositionDraws(seed, position),
        settings=StepConfig(seed=seed, t_min=0, t_max=999, posterior=True),
        steps=steps,
        pairs_per_update=batch,
        clip=1.0,
        average=ExponentialMovingAverage(dict(denoiser.policy.named_parameters()), ema) if ema else None,
    )


class Quiet:
    """An objective that doesn't say what it expects of untrained weights, for policies that were moved by hand."""

    at_reference = None

    def __init__(self, inner: Objective) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def __call__(self, *arguments):  # type: ignore[no-untyped-def]
        return self._inner(*arguments)


def moved(session: Session) -> Session:
    """The session, its policy 0.05 away from its reference in every weight: every objective has a gradient there.
    Inversion-DPO's has none at the reference, where rounding alone would decide."""
    with torch.no_grad():
        for p in session.denoiser.policy.parameters():
            p.add_(0.05)
    session.objective = Quiet(session.objective)  # type: ignore[assignment]
    return session
