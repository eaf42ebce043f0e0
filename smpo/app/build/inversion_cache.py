"""Inverted trajectories that outlive a run, and what the reference said at their ends: trials of a sweep that differ in
objective, beta, smoothing or learning rate invert the same images to the same noise, when they follow the frozen
reference, and compare the policy with the same predictions.

What is kept is filed under everything that shapes it: weights, precision, kernels, the inversion's settings and
version, the latents, prompts, timesteps and positions of the micro-batch, and seed. So a change of anything is a
miss, and a hit is what was computed then: bit for bit what this machine would compute, if it is of the same type and
has the same versions and threads, and else to rounding. In the steady state a visit costs the policy's own passes and
nothing else: six forwards of an image a pair.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from smpo.atomic import inherit_permissions
from smpo.experiment import ExperimentSpec
from smpo.kinds import Denoiser, Draws, Inversion, PairTable, Predictors, ReferenceCache, Runtime

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.maths.inversion import Noised
    from smpo.maths.schedule import NoiseSchedule

__all__ = ["cached_inversion"]


def cached_inversion(
    spec: ExperimentSpec, denoiser: Denoiser, table: PairTable, runtime: Runtime
) -> tuple[Inversion, ReferenceCache | None]:
    """The spec's inversion, and what the reference said: both with a memory if `runtime.reuse_inversions` asks for one
    and the inversion follows the reference."""
    inversion = spec.inversion
    if not spec.runtime.reuse_inversions or getattr(inversion, "by", "") != "reference":
        return inversion, None
    about = {
        "weights": denoiser.weights_key,
        "encoders": denoiser.encoder_key,
        "precision": runtime.precision,
        "device": [runtime.device, _processor(runtime.device)],
        "kernels": [runtime.compile, runtime.channels_last, runtime.attention, torch.get_num_threads()],
        "torch": torch.__version__,
        "inversion": inversion.model_dump(mode="json"),
        "version": inversion.version,
        "pairs": table.digest,
        "seed": spec.train.seed,
        "dropout": spec.train.prompt_dropout,
    }
    known = json.dumps(about, sort_keys=True)
    return cast(Inversion, _CachedInversion(inversion, runtime.cache / "inverted", known)), _CachedReference(
        runtime.cache / "referred"
    )


def _processor(device: str) -> str:
    """What kernels are chosen for: another card, or another instruction set, rounds in another way."""
    return str(torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability())


class _CachedInversion:
    """Looks before it inverts. Everything but the call is the inversion's own."""

    def __init__(self, inner: Inversion, folder: Path, about: str) -> None:
        self._inner, self._folder, self._about = inner, folder, about

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(
        self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws
    ) -> Noised:
        from smpo.maths.inversion import Noised

        positions = getattr(draws, "positions", None)
        if positions is None:
            return self._inner(x0, t, predict, schedule, draws)
        key = self._key(x0, t, positions, predict)
        file = _place(self._folder, key)
        kept = _read(file)
        if kept is not None and {"x_t", "noise"} <= kept.keys():
            return Noised(kept["x_t"].to(x0), kept["noise"].to(x0), 0, key)
        noised = self._inner(x0, t, predict, schedule, draws)
        _write(file, {"x_t": noised.x_t, "noise": noised.noise})
        return noised._replace(key=key)

    def _key(self, x0: Tensor, t: Tensor, positions: list[int], predict: Predictors) -> str:
        digest = hashlib.sha256(self._about.encode())
        for tensor in (x0.float(), t):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        shown = [list(x0.shape), positions, list(predict.pictures)]
        digest.update(json.dumps(shown).encode())
        return digest.hexdigest()[:40]


class _CachedReference:
    """What the reference said of a micro-batch, under the name of its latents and its place in their window."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> Tensor | None:
        kept = _read(_place(self._folder, key))
        return None if kept is None else kept.get("output")

    def put(self, key: str, output: Tensor) -> None:
        _write(_place(self._folder, key), {"output": output})


def _place(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key[2:]}.safetensors"


def _read(file: Path) -> dict[str, Tensor] | None:
    """None where nothing is kept, or what is there can't be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        kept: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError):
        return None
    return kept


def _write(file: Path, tensors: dict[str, Tensor]) -> None:
    """Whole or not at all; a full disk costs time, not the run."""
    from safetensors.torch import save_file

    fresh = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: one.detach().cpu().contiguous() for name, one in tensors.items()}, fresh)
        inherit_permissions(fresh)
        fresh.replace(file)
    except OSError:
        fresh.unlink(missing_ok=True)
