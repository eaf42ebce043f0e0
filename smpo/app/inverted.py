"""Inverted trajectories that outlive a run: trials of a sweep that differ in objective, beta, smoothing or learning
rate invert the same images to the same noise, when they follow the frozen reference.

What is kept is filed under everything that shapes it: weights, precision, the inversion's settings and version, the
latents, timesteps and positions of the micro-batch, and seed and prompts. So a hit is bit for bit what would have been
computed, and a change of anything is a miss.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from smpo.experiment import ExperimentSpec
from smpo.kinds import Denoiser, Draws, Inversion, PairTable, Predictors, Runtime

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.maths.noising import Noised
    from smpo.maths.schedule import NoiseSchedule

__all__ = ["reused"]


def reused(spec: ExperimentSpec, denoiser: Denoiser, table: PairTable, runtime: Runtime) -> Inversion:
    """The spec's inversion, with a memory if `runtime.reuse_inversions` asks for one and it follows the reference."""
    inversion = spec.inversion
    wanted = spec.runtime.reuse_inversions and not inversion.remembers
    if not wanted or getattr(inversion, "by", "") != "reference":
        return inversion.for_run(spec.train.batch)
    about = {
        "weights": denoiser.weights_key,
        "encoders": denoiser.encoder_key,
        "precision": runtime.precision,
        "device": runtime.device,
        "torch": torch.__version__,
        "inversion": inversion.model_dump(mode="json"),
        "version": inversion.version,
        "pairs": table.digest,
        "seed": spec.train.seed,
        "dropout": spec.train.prompt_dropout,
    }
    return cast(
        Inversion, _Remembered(inversion, runtime.cache / "inverted", json.dumps(about, sort_keys=True))
    )


class _Remembered:
    """Looks before it inverts. Everything but the call is the inversion's own."""

    def __init__(self, inner: Inversion, folder: Path, about: str) -> None:
        self._inner, self._folder, self._about = inner, folder, about

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(
        self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws
    ) -> Noised:
        from smpo.maths.noising import Noised

        positions = getattr(draws, "positions", None)
        if positions is None:
            return self._inner(x0, t, predict, schedule, draws)
        file = self._file(x0, t, positions)
        kept = _read(file)
        if kept is not None:
            return Noised(kept["x_t"].to(x0), kept["noise"].to(x0), 0)
        noised = self._inner(x0, t, predict, schedule, draws)
        _write(file, {"x_t": noised.x_t, "noise": noised.noise})
        return noised

    def _file(self, x0: Tensor, t: Tensor, positions: list[int]) -> Path:
        digest = hashlib.sha256(self._about.encode())
        for tensor in (x0.float(), t):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        digest.update(json.dumps([list(x0.shape), positions]).encode())
        name = digest.hexdigest()
        return self._folder / name[:2] / f"{name[2:40]}.safetensors"


def _read(file: Path) -> dict[str, Tensor] | None:
    """None where nothing is kept, or what is there can't be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        kept: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError):
        return None
    return kept if {"x_t", "noise"} <= kept.keys() else None


def _write(file: Path, tensors: dict[str, Tensor]) -> None:
    """Whole or not at all; a full disk costs time, not the run."""
    from safetensors.torch import save_file

    fresh = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: one.detach().cpu().contiguous() for name, one in tensors.items()}, fresh)
        fresh.replace(file)
    except OSError:
        fresh.unlink(missing_ok=True)
