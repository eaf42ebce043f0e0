"""Switches that save memory or time and change no number: the same curve to the last digit. And what changes where a
model comes from, but not what it is: a single file trains like the folder that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from smpo.app.build.build import build_run
from smpo.engine.loop import fit
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import resolve
from tests.families.original_layout import single_file
from tests.pipelines.worlds import make_sd, make_sdxl, make_votes


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("switches")
    make_sdxl(folder / "sdxl")
    make_votes(folder / "votes.parquet")
    return folder


Curve = tuple[list[float], torch.Tensor]


def curve(place: Path, model: str, *sets: str) -> Curve:
    """Losses, and the trained numbers at the end."""
    import smpo.components  # noqa: F401 -- fills the common registry

    (place / "spec.yaml").write_text(f"""\
name: switches
model: {model}
data: {{use: pickapic, path: {place / "votes.parquet"}}}
objective: {{use: smpo, beta: 1000}}
smoothing: hard
inversion: {{use: renoise, steps: 3, by: policy}}
train: {{steps: 3, batch: 4, lr: 1.0e-3, optimiser: adafactor}}
runtime: {{device: cpu, threads: 1, micro_batch: 2, runs: {place / "runs"}, cache: {place / "cache"}, tracking: none}}
""")
    spec = resolve(place / "spec.yaml", skeleton=ExperimentSpec, sets=sets).spec
    session = build_run(spec, report=None, progress=lambda *_: None, say=pytest.fail).session
    losses = [report.metrics["loss"] for report in fit(session)]
    return losses, torch.cat([p.detach().flatten() for p in session.parameters])


WAYS = {"whole": "", "LoRA": ", lora: {rank: 4}", "DoRA": ", lora: {rank: 4, dora: true}"}


@pytest.fixture(scope="module")
def plain(place: Path) -> dict[str, Curve]:
    return {
        way: curve(place, f"{{use: stable-diffusion, weights: {place / 'sdxl'}{lora}}}") for way, lora in WAYS.items()
    }


@pytest.mark.parametrize(
    ("way", "switches"),
    [
        (
            "whole",
            ["gradient_checkpointing=true", "offload_reference=true", "vae_slicing=true", "vae_tiling=true"],
        ),
        ("whole", ["gradient_checkpointing=selective"]),
        ("LoRA", ["gradient_checkpointing=true", "offload_reference=true", "vae_slicing=true"]),
        ("DoRA", ["gradient_checkpointing=true"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_a_switch_changes_no_digit(place: Path, plain: dict[str, Curve], way: str, switches: list[str]) -> None:
    model = f"{{use: stable-diffusion, weights: {place / 'sdxl'}{WAYS[way]}}}"
    losses, weights = curve(place, model, *(f"runtime.{one}" for one in switches))
    assert losses == plain[way][0] and torch.equal(weights, plain[way][1])
    assert len(set(losses)) == 3, "and something was learnt"


def test_a_single_file_trains_like_its_folder(place: Path) -> None:
    wide: dict[str, Any] = {"channels": (32, 64), "groups": 32}
    folder = make_sd(place / "sd", width=64, **wide)
    file = single_file(DiffusionPipeline.from_pretrained(folder, dtype=torch.float32), place / "sd.safetensors")
    from_folder = curve(place, f"{{use: stable-diffusion, weights: {folder}}}")
    from_file = curve(place, f"{{use: stable-diffusion, weights: {file}, config: {folder}}}")
    assert from_file[0] == from_folder[0] and torch.equal(from_file[1], from_folder[1])
