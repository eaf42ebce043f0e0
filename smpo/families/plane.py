"""The plane family: the engine's whole protocol on a network of 76,000 weights and pictures that are points.

Everything that differs from a latent-diffusion model is here: there is no VAE (a point is its own latent,
with no spread), prompts are looked up instead of encoded, and one of the eight compass words, or the empty
prompt, is all there is to say. Training moves all weights; the reference is a frozen second copy.

Shapes: `N` points, latents `[N, 2, 1, 1]`.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from smpo.errors import RunError
from smpo.families.files.saved_folder import replaced_folder
from smpo.families.finite import require_finite
from smpo.kinds import Conditioning, Placement
from smpo.worlds.plane.network import NULL, PlaneNet, read_network, sample_points, schedule, start_noise, write_network
from smpo.worlds.plane.world import condition_of

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["BASE", "PlaneDenoiser", "load_plane"]

BASE = Path(__file__).parents[1] / "worlds" / "plane" / "weights" / "base.safetensors"
"""The base that comes with smpo."""

_MODEL = "model.safetensors"

Precision = Literal["fp32", "bf16", "fp16"]
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class PlaneDenoiser:
    """A `Denoiser` of points. `policy` trains; the reference is its frozen copy unless another network, or a function
    that loads one at its first use, is given."""

    latent_shape = (2, 1, 1)
    encoder_key = "plane-points-v1"

    def __init__(
        self,
        policy: PlaneNet,
        *,
        reference: PlaneNet | Callable[[], PlaneNet] | None = None,
        device: torch.device | str = "cpu",
        precision: Precision = "fp32",
    ) -> None:
        self._half = _HALF.get(precision)
        self.device = torch.device(device)
        self.schedule = schedule().to(self.device)
        self.network = policy.to(self.device)
        """The trained network itself, never wrapped."""
        self.policy: nn.Module = self.network
        known = reference if isinstance(reference, PlaneNet) else policy
        self.weights_key = f"plane-{_digest(known)}"
        self._fetch = reference if not isinstance(reference, PlaneNet) else None
        self.origin: Mapping[str, str] = {}
        self._reference = None if self._fetch is not None else self._freeze(copy.deepcopy(known))

    def _freeze(self, network: PlaneNet) -> nn.Module:
        return network.to(self.device).requires_grad_(False).eval()

    def _network(self, reference: bool) -> nn.Module:
        if not reference:
            # The wrapped twin wants to talk to other processes at each pass; only gradients need that.
            return self.policy if torch.is_grad_enabled() else self.network
        if self._reference is None:
            assert self._fetch is not None
            self._reference = self._freeze(self._fetch())
        return self._reference

    def encode_pictures(self, pictures: Sequence[Picture], placements: Sequence[Placement]) -> dict[str, Tensor]:
        """`mean` is the point, `std` is zero. A mirrored point would belong to another prompt, so flips are
        refused."""
        if any(placement.flip for placement in placements):
            raise RunError("the plane's points can't be mirrored", help="set `train.flip: false`")
        points = np.array([np.asarray(picture, dtype=np.float32) for picture in pictures])
        mean = torch.as_tensor(points.reshape(-1, *self.latent_shape), device=self.device)
        return {"mean": mean, "std": torch.zeros_like(mean)}

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`condition` `[N]`: the prompt's index among the eight, or the null class for the empty prompt."""
        found = np.full(len(prompts), NULL, dtype=np.int64)
        said = [index for index, prompt in enumerate(prompts) if prompt]
        found[said] = condition_of([prompts[index] for index in said])
        return {"condition": torch.as_tensor(found, device=self.device)}

    def predict(
        self, x: Tensor, t: Tensor, cond: Conditioning, *, reference: bool = False, inverting: bool = False
    ) -> Tensor:
        """The noise in `x` `[N, 2, 1, 1]` at timesteps `t` `[N]`, at least float32."""
        network = self._network(reference)
        with torch.autocast(self.device.type, dtype=self._half, enabled=self._half is not None):
            output = cast(Tensor, network(x, t, cond.tensors["condition"]))
        return output.to(torch.promote_types(output.dtype, torch.float32))

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
        """One point `[2]` (float32) a prompt, by DDIM from a start that its seed alone determines."""
        with torch.no_grad():
            network = self._network(reference)
        points = sample_points(
            network,
            start_noise(seeds).to(self.device),
            self.encode_prompts(prompts)["condition"],
            self.schedule,
            guidance=guidance,
            steps=steps,
        )
        require_finite(points)
        return list(points.reshape(-1, 2).cpu().numpy())

    def save(self, folder: Path) -> list[str]:
        """`model.safetensors`, which `load_plane` reads, and `config.json` for people."""
        policy = self.policy
        while not isinstance(policy, PlaneNet):  # a twin that the engine wrapped round it
            policy = cast(nn.Module, policy.module)
        config = {"_class_name": "PlaneNet", **asdict(policy.shape)}
        with replaced_folder(folder) as fresh:
            write_network(policy, fresh / _MODEL)
            (fresh / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        return [
            "from pathlib import Path",
            "from smpo.families.plane import load_plane",
            f'plane = load_plane(Path("{folder.name}"))',
            'points = plane.sample(["north-east"] * 100, range(100), guidance=3.0, steps=50)',
        ]


def load_plane(
    weights: Path = BASE,
    *,
    reference: Path | None = None,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    hold_reference: bool = True,
) -> PlaneDenoiser:
    """A denoiser from a file or from a folder that `save` wrote.

    The reference is a copy of the policy, unless `reference` names other weights: reopen a trained one with
    `reference=BASE` to compare the two. `hold_reference=False` loads the copy at its first use.
    `precision` is that of training; samples are always drawn in float32.
    Raises MachineError when there are no such weights.
    """
    base = _file(weights if reference is None else reference)
    kept = read_network(base) if hold_reference and reference is not None else None
    return PlaneDenoiser(
        read_network(_file(weights)),
        reference=kept if hold_reference else lambda: read_network(base),
        device=device,
        precision=precision,
    )


def _file(weights: Path) -> Path:
    return weights / _MODEL if weights.is_dir() else weights


def _digest(network: nn.Module) -> str:
    content = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        content.update(name.encode() + value.cpu().numpy().tobytes())
    return content.hexdigest()[:16]
