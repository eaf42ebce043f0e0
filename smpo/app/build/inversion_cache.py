"""Inverted latents, and the reference's predictions for them, cached on disk.

Trials of a sweep that differ in objective, beta, smoothing or learning rate invert the same images to the same noise
where the inversion follows the frozen reference, and compare the policy with the same predictions. The cache's key has
everything that shapes them: weights, precision, kernels, the inversion's settings and version, the latents, prompts,
timesteps and positions of the micro-batch, and the seed. A hit is bit for bit what this machine would compute, if it
has the same type, versions and threads, and else equal to rounding.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from smpo.atomic import inherit_permissions
from smpo.experiment import ExperimentSpec
from smpo.kinds import Denoiser, Draws, Inversion, PairTable, Predictors, ReferenceCache, Runtime
from smpo.kinds.live import Invert

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.maths.inversion import Noised
    from smpo.maths.schedule import NoiseSchedule

__all__ = ["cached_inversion"]


def cached_inversion(
    spec: ExperimentSpec, denoiser: Denoiser, table: PairTable, runtime: Runtime
) -> tuple[Invert, ReferenceCache | None]:
    """The spec's inversion and the cache of the reference's predictions. Both are cached where
    `runtime.reuse_inversions` is set and the inversion follows the reference; otherwise the cache is None."""
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
    folder = runtime.cache
    return _CachedInversion(inversion, folder / "inverted", known), _CachedReference(folder / "referred")


def _processor(device: str) -> str:
    """The GPU's name, or the CPU's instruction set: kernels are chosen for it, and round differently on another."""
    return str(torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability())


class _CachedInversion:
    """An inversion whose results are cached in `folder`; `about` is the part of the key that a run has in common."""

    def __init__(self, inner: Inversion, folder: Path, about: str) -> None:
        self._inner, self._folder, self._about = inner, folder, about

    def __call__(self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws) -> Noised:
        from smpo.maths.inversion import Noised

        positions = getattr(draws, "positions", None)
        if positions is None:
            return self._inner(x0, t, predict, schedule, draws)
        key = self._key(x0, t, positions, predict)
        file = _place(self._folder, key)
        cached = _read(file)
        if cached is not None and {"x_t", "noise"} <= cached.keys():
            return Noised(cached["x_t"].to(x0), cached["noise"].to(x0), 0, key)
        noised = self._inner(x0, t, predict, schedule, draws)
        _write(file, {"x_t": noised.x_t, "noise": noised.noise})
        return noised._replace(key=key)

    def _key(self, x0: Tensor, t: Tensor, positions: list[int], predict: Predictors) -> str:
        digest = hashlib.sha256(self._about.encode())
        for tensor in (x0.float(), t):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        names = [list(x0.shape), positions, list(predict.pictures)]
        digest.update(json.dumps(names).encode())
        return digest.hexdigest()[:40]


class _CachedReference:
    """The reference's output for a micro-batch, under the key of its latents and its place in their window."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> Tensor | None:
        cached = _read(_place(self._folder, key))
        return None if cached is None else cached.get("output")

    def put(self, key: str, output: Tensor) -> None:
        _write(_place(self._folder, key), {"output": output})


def _place(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key[2:]}.safetensors"


def _read(file: Path) -> dict[str, Tensor] | None:
    """None where there is no file, or none that can be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        cached: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError):
        return None
    return cached


def _write(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write atomically; a full disk is no error."""
    from safetensors.torch import save_file

    fresh = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, fresh)
        inherit_permissions(fresh)
        fresh.replace(file)
    except OSError:
        fresh.unlink(missing_ok=True)
