"""The official loop's structure under today's PyTorch, written anew: one pair at a time, everything in the loop.

What it spends time on is kept: float32 weights under autocast, checkpointing that is entered without gradients too,
autoencoder and text encoders at every visit, a scheduler that steps on device scalars and compares them, five
numbers fetched per pair. It shares no line with smpo. Switches turn single habits off, for the ladder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from speed.archs import BETA, CHECKPOINTED, GRID, World

GAMMA = 10.0
Phase = Callable[[str], Any]


@dataclass(frozen=True)
class Habits:
    """What the loop does besides the method."""

    checkpointing: bool
    encode_in_loop: bool = True


def habits_of(arch: str) -> Habits:
    return Habits(checkpointing=CHECKPOINTED[arch])


class InverseScheduler:
    """A DDIM inverse scheduler as diffusers had it: `step` works on device scalars, before 0.22 from the timestep it is
    given upwards, since then up to it."""

    def __init__(self, steps: int, grid: str, device: torch.device) -> None:
        # Rounded once, where diffusers multiplies in float32 and is 5e-7 off: not what is compared here.
        root = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
        self.alphas_cumprod = torch.cumprod(1 - root**2, dim=0).float().to(device)
        self.initial = self.alphas_cumprod[0]
        self.stride, self.rolled = 1000 // steps, grid == "0.20"
        levels = torch.arange(steps) * self.stride + 1
        self.timesteps = (levels - self.stride if self.rolled else levels).to(device)

    def step(self, noise: Tensor, timestep: Tensor, x: Tensor) -> Tensor:
        source, target = (timestep, timestep + self.stride) if self.rolled else (timestep - self.stride, timestep)
        before = self.alphas_cumprod[source] if source >= 0 else self.initial
        after = self.alphas_cumprod[target]
        clean = (x - (1 - before) ** 0.5 * noise) / before**0.5
        return after**0.5 * clean + (1 - after) ** 0.5 * noise


class Official:
    """`update()` runs all pairs of the world, one after another, and steps the optimiser."""

    def __init__(self, world: World, grid: str, half: torch.dtype | None, habits: Habits) -> None:
        self.world, self.half, self.habits = world, half, habits
        self.scheduler = InverseScheduler(GRID[world.arch], grid, world.device)
        self.kept: list[tuple[Tensor, Tensor]] | None = None
        self.seen: list[dict[str, Any]] = []
        self.optimiser = world.optimiser
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=half is torch.float16)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Nothing: what this arm changes about the networks it undoes itself."""
        yield

    def update(self, phase: Phase, *, step: bool = True) -> int:
        self.seen.clear()
        pairs = len(self.world.t)
        with checkpointed(self.world.policy) if self.habits.checkpointing else _as_it_is():
            for index in range(pairs):
                self._pair(index, pairs, phase)
        if step:
            with phase("optimiser"):
                self.scaler.unscale_(self.optimiser)
                torch.nn.utils.clip_grad_norm_(self.world.policy.parameters(), 1.0)
                self.scaler.step(self.optimiser)
                self.scaler.update()
                self.optimiser.zero_grad()
        return pairs

    def _pair(self, index: int, pairs: int, phase: Phase) -> None:
        world, scheduler = self.world, self.scheduler
        latents, told = self._inputs(index, phase)
        t = world.t[index : index + 1].to(world.device).repeat(2)
        with phase("inversion"), torch.no_grad():
            x = latents.clone()
            for level in scheduler.timesteps[scheduler.timesteps < t[0]]:
                first = self._ask(world.policy, x, level, told)
                guess = scheduler.step(first, level, x)
                second = self._ask(world.policy, guess, level, told)
                x = scheduler.step((first + second) / 2, level, x)
        abar = scheduler.alphas_cumprod[t].reshape(-1, 1, 1, 1)
        target = (x - abar**0.5 * latents) / (1 - abar) ** 0.5
        with phase("policy"):
            prediction = self._ask(world.policy, x, t, told)
        error = (prediction - target).pow(2).mean(dim=[1, 2, 3])
        with phase("reference"), torch.no_grad():
            reference = (self._ask(world.reference, x, t, told) - target).pow(2).mean(dim=[1, 2, 3])
        weight = GAMMA * (2 * world.p[index].to(world.device) - 1)
        inside = -0.5 * BETA[world.arch] * weight * ((error[0] - error[1]) - (reference[0] - reference[1]))
        loss = -F.logsigmoid(inside)
        with phase("numbers"):
            self.seen.append(
                {
                    "loss": loss.item(),
                    "inside": inside.item(),
                    "errors": [one.item() for one in error],
                    "reference": reference.mean().item(),
                    "x_t": x,
                    "target": target,
                }
            )
        with phase("backward"):
            self.scaler.scale(loss / pairs).backward()

    def _inputs(self, index: int, phase: Phase) -> tuple[Tensor, dict[str, Tensor]]:
        world = self.world
        pixels, tokens = world.images[index], world.tokens[index : index + 1]
        if not self.habits.encode_in_loop:
            return self._cached()[index]
        with phase("vae"), torch.no_grad(), self._autocast():
            posterior = world.vae.encode(pixels.to(world.device)).latent_dist
            latents = (posterior.mean + posterior.std * world.noise[:, index].to(world.device)) * world.scale
        with phase("text"), torch.no_grad(), self._autocast():
            told = {name: rows.repeat(2, *[1] * (rows.ndim - 1)) for name, rows in self._told(tokens).items()}
        return latents.float(), told

    def _cached(self) -> list[tuple[Tensor, dict[str, Tensor]]]:
        if self.kept is None:
            inside, self.habits = self.habits, Habits(self.habits.checkpointing)
            self.kept = [self._inputs(i, _silent) for i in range(len(self.world.t))]  # type: ignore[misc]
            self.habits = inside
        return self.kept  # type: ignore[return-value]

    def _told(self, tokens: Tensor) -> dict[str, Tensor]:
        return self.world.encoded(tokens.to(self.world.device))

    def _ask(self, network: torch.nn.Module, x: Tensor, t: Tensor, told: dict[str, Tensor]) -> Tensor:
        added = None
        if "pooled" in told:
            added = {"text_embeds": told["pooled"], "time_ids": told["size_ids"]}
        with self._autocast():
            out = network(x, t, encoder_hidden_states=told["text"], added_cond_kwargs=added).sample
        return out.float()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.world.device.type, dtype=self.half or torch.bfloat16, enabled=self.half is not None)


@contextmanager
def checkpointed(network: torch.nn.Module) -> Iterator[None]:
    """Every ResNet and transformer of the network inside `checkpoint`, with gradients or without, as diffusers 0.20
    had it."""
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    wrapped = [m for m in network.modules() if isinstance(m, ResnetBlock2D | Transformer2DModel)]
    for module in wrapped:
        forward = module.forward

        def around(*arguments: Any, forward: Any = forward, **named: Any) -> Any:
            return checkpoint(forward, *arguments, use_reentrant=False, **named)

        module.forward = around  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in wrapped:
            del module.forward


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _silent(_name: str) -> Iterator[None]:
    yield
