"""The plane's denoiser: a residual MLP over points, and its sampler.

    h_0     = W x + T(t) + C(condition)
    h_{k+1} = h_k + W_k silu(h_k)          k = 0, 1, 2
    eps     = W' silu(h_3)

T is a small network of sinusoids, C a table whose last row stands for "no prompt" (classifier-free guidance).
Latents are points with image axes, `[N, 2, 1, 1]`, so that nothing above needs to know that they are points.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import silu

from smpo.errors import MachineError, readable
from smpo.maths.inversion import ddim_sample
from smpo.maths.schedule import NoiseSchedule
from smpo.worlds.plane.world import CONDITIONS

__all__ = ["NULL", "PlaneNet", "Shape", "read_network", "sample_points", "schedule", "start_noise", "write_network"]

NULL = len(CONDITIONS)
"""The condition that stands for the empty prompt."""
_AT_ONCE = 500
"""Points that are sampled together: activations that fit a core's cache are twice as fast as ones that don't."""


def schedule() -> NoiseSchedule:
    """Stable Diffusion's noise levels, so that its timesteps and betas mean the same here."""
    return NoiseSchedule.scaled_linear()


_LARGEST = 4096
"""No axis of a network of points is longer; a file with a longer one is refused."""


@dataclass(frozen=True)
class Shape:
    """What is needed to build the network before its weights are read."""

    width: int = 128
    layers: int = 3
    frequencies: int = 32
    conditions: int = len(CONDITIONS)


class PlaneNet(nn.Module):
    """eps(x, t, condition) for points."""

    waves: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        # Periods from 6 to 10,000 timesteps, as for transformers.
        waves = torch.exp(-math.log(10_000.0) * torch.arange(shape.frequencies) / shape.frequencies)
        self.register_buffer("waves", waves, persistent=False)
        self.enter = nn.Linear(2, width)
        self.time = nn.Sequential(nn.Linear(2 * shape.frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.Embedding(shape.conditions + 1, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(shape.layers))
        self.leave = nn.Linear(width, 2)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """`x` `[N, 2, 1, 1]`, `t` and `condition` `[N]` integers -> `[N, 2, 1, 1]`."""
        # Samplers and inversions pass many points with one timestep: a quarter of the work is done once for all.
        seen, which = t.unique(return_inverse=True)
        angle = seen[:, None].to(self.waves.dtype) * self.waves
        time = self.time(torch.cat([angle.sin(), angle.cos()], dim=1))
        h = self.enter(x.flatten(1)) + time[which] + self.condition(condition)
        for block in self.blocks:
            h = h + block(silu(h))
        out: Tensor = self.leave(silu(h))
        return out.reshape(x.shape)


def read_network(weights: Path) -> PlaneNet:
    """A network from a `.safetensors` file whose header holds its `Shape`. Raises MachineError if there is none."""
    if not weights.is_file():
        raise MachineError(
            f"there are no plane weights at {weights}",
            help="in a checkout of smpo `python -m tools.make_plane` makes them",
        )
    with readable("the plane's network", weights), safe_open(weights, framework="pt") as file:
        notes = json.loads((file.metadata() or {}).get("plane", "{}"))
        if "shape" not in notes:
            raise MachineError(f"{weights} holds no plane network: its header names no shape")
        shape = Shape(**notes["shape"])
        if not all(isinstance(size, int) and 0 < size <= _LARGEST for size in astuple(shape)):
            raise MachineError(f"{weights} holds no plane network: its header asks for {shape}")
        network = PlaneNet(shape)
        network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return network


def write_network(network: PlaneNet, weights: Path, **notes: object) -> None:
    """Weights in float32 with the shape, and `notes` about their making, in the header."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    weights.parent.mkdir(parents=True, exist_ok=True)
    # One entry, not several: safetensors writes several in no particular order.
    save_file(tensors, weights, metadata={"plane": json.dumps({"shape": asdict(network.shape), **notes})})


def start_noise(seeds: Sequence[int]) -> Tensor:
    """`[N, 2, 1, 1]` standard normal; row i is a function of seed i alone (one Philox stream a seed)."""
    rows = [np.random.Generator(np.random.Philox(key=seed)).standard_normal(2) for seed in seeds]
    return torch.as_tensor(np.array(rows, dtype=np.float32).reshape(-1, 2, 1, 1))


def sample_points(
    network: nn.Module, start: Tensor, conditions: Tensor, levels: NoiseSchedule, *, guidance: float, steps: int
) -> Tensor:
    """DDIM from `start` `[N, 2, 1, 1]` down to clean points, `[N, 2, 1, 1]`, on `start`'s device.

    With guidance w the noise is eps(null) + w (eps(condition) - eps(null)); w = 1 costs one pass a step, not
    two. The last step ends at abar = 1: the mixture's sd is 0.12, and abar_0 would leave 0.03 of noise in it.
    """

    def some(start: Tensor, conditions: Tensor) -> Tensor:
        def predict(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            given = conditions[rows]
            if guidance == 1:
                return torch.as_tensor(network(x, t, given))
            null = torch.full_like(given, NULL)
            free, bound = network(torch.cat([x, x]), torch.cat([t, t]), torch.cat([null, given])).chunk(2)
            return torch.as_tensor(free + guidance * (bound - free))

        return ddim_sample(start, predict, levels, steps, set_alpha_to_one=True)

    with torch.no_grad():
        parts = zip(start.split(_AT_ONCE), conditions.split(_AT_ONCE), strict=True)
        return torch.cat([some(*part) for part in parts])
