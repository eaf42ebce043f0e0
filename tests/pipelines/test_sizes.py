"""`evaluate.sizes`: pictures that aren't square, as a person asks for them, on a small SDXL."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from smpo.app.plan.plan import make_plan
from smpo.experiment import ExperimentSpec
from smpo.families.loading import load_unet
from smpo.kinds import Runtime
from smpo.registry.resolve import Resolved, resolve
from tests.cli.words import smpo
from tests.pipelines.worlds import make_pickscore, make_sdxl, make_votes

SIZES = ((32, 32), (24, 48), (56, 16))
"""Width and height."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sizes")
    make_sdxl(folder / "base")
    weights, processor = make_pickscore(folder)
    reward = f"{{use: clip-preference, weights: {weights}, processor: {processor}}}"
    (folder / "prompts.txt").write_text("\n".join(f"a shape, number {i}" for i in range(6)) + "\n")
    (folder / "spec.yaml").write_text(f"""\
name: sized
model: {{use: stable-diffusion, weights: {folder / "base"}}}
data: {{use: pickapic, path: {make_votes(folder / "votes.parquet")}, buckets: {{step: 8}}}}
objective: {{use: smpo, beta: 100}}
smoothing: hard
inversion: none
train: {{steps: 1, batch: 4, lr: 1.0e-3}}
evaluate:
  prompts: {{use: text, path: {folder / "prompts.txt"}}}
  rewards: [{reward}]
  steps: 2
  images: 2
runtime: {{threads: 1, device: cpu, tracking: none, preview_every: 1}}
""")
    return folder


def resolved(place: Path, *sets: str) -> Resolved[ExperimentSpec]:
    import smpo.components  # noqa: F401 -- fills the common registry

    return resolve(place / "spec.yaml", skeleton=ExperimentSpec, sets=sets)


def asked(sizes: Any = SIZES) -> str:
    return f"evaluate.sizes={json.dumps(sizes)}"


def test_base_and_policy_draw_the_sizes_that_are_asked_for(place: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(place)
    assert smpo(capfd, "run", "spec.yaml", "-q", "--set", asked()).code == 0
    (run,) = Path("runs/sized").glob("*-1")
    told = json.loads((run / "evaluation.json").read_text())
    assert told["settings"]["sizes"] == [list(size) for size in SIZES]
    (judge,) = told["judgements"]
    assert all(score is not None for side in ("base", "policy") for row in judge[side] for score in row)

    from PIL import Image

    drawn = [Image.open(file).size for file in Path("runs/cache/base").glob("*/*.png")]
    assert len(drawn) == 12 and set(drawn) == set(SIZES)
    assert (run / "samples/before_after.png").is_file()
    square = smpo(capfd, "eval", str(run), "--set", "evaluate.sizes=null")
    assert square.code == 0, square.err
    later = [Image.open(file).size for file in Path("runs/cache/base").glob("*/*.png")]
    own = load_unet(place / "base", runtime=Runtime()).stack.resolution
    assert later.count((own, own)) == 24 + drawn.count((own, own)), "base and policy, under keys of their own"


def test_pictures_are_those_that_diffusers_draws(place: Path) -> None:
    from diffusers import DiffusionPipeline

    denoiser = load_unet(place / "base", runtime=Runtime())
    (ours,) = denoiser.sample(["a shape"], [7], guidance=3.0, steps=2, size=(16, 56))
    theirs = DiffusionPipeline.from_pretrained(place / "base")(
        "a shape", guidance_scale=3.0, num_inference_steps=2, height=16, width=56,
        generator=torch.Generator().manual_seed(7),
    ).images[0]  # fmt: skip
    assert ours.size == (56, 16) and ours.tobytes() == theirs.tobytes()  # type: ignore[union-attr]


def test_sizes_that_do_not_suit_the_model_are_refused_before_anything_is_loaded(place: Path, capfd) -> None:
    said = smpo(capfd, "plan", str(place / "spec.yaml"), "--set", asked([[32, 32], [20, 32]]))
    assert said.code == 2 and "20 x 32" in said.err and "multiples of" in said.err
    assert "evaluate.sizes" in said.err and "Traceback" not in said.err
    said = smpo(capfd, "plan", "plane_smpo", "--set", "evaluate.sizes=[[8, 8]]")
    assert said.code == 2 and "it can't be asked for sizes" in said.err


def test_no_sizes_are_no_part_of_the_identity(place: Path) -> None:
    plain = resolved(place).identity
    assert resolved(place, "evaluate.sizes=null").identity.spec_hash == plain.spec_hash
    assert resolved(place, asked()).identity.spec_hash != plain.spec_hash


def test_squares_after_training_on_buckets_are_doubtful(place: Path) -> None:
    def told(*sets: str) -> bool:
        return any("the evaluation draws squares" in warning for warning in make_plan(resolved(place, *sets)).warnings)

    assert told() and not told(asked()) and not told("data.buckets=null")


def test_a_plan_counts_the_area(place: Path, monkeypatch) -> None:
    """The small network passes for an SDXL, so that it is priced."""
    from smpo.app.plan import plan

    network = next(one for one in plan.known.__globals__["ARCHITECTURES"] if one.resolution == 1024)
    monkeypatch.setattr(plan, "known", lambda *_: network)

    def hours(*sets: str) -> float:
        return make_plan(resolved(place, *sets)).gpus[0].judging_hours

    plain = hours()
    assert hours(asked([[32, 32]])) == pytest.approx(plain)
    assert plain < hours(asked([[64, 32]])) <= 2 * plain
