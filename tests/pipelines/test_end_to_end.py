"""From votes in a parquet file to an artefact that plain diffusers opens, by the commands that a person types: small
pipelines of the architectures of SD 1.5, SD 2 (velocity, zero terminal SNR) and SDXL, whole and as a LoRA."""

import json
from pathlib import Path

import pytest

from tests.cli.words import smpo
from tests.pipelines.worlds import make_pickscore, make_sd, make_sdxl, make_votes

ARCHITECTURES = {
    "sd15": make_sd,
    "sd2": lambda folder: make_sd(folder, linear=True, prediction_type="v_prediction", rescale_betas_zero_snr=True),
    "sdxl": make_sdxl,
}


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        *((name, adapter) for name in ARCHITECTURES for adapter in ("", "{rank: 4}")),
        ("sdxl", "{rank: 4, dora: true}"),
    ],
    ids=lambda value: value or "whole",
)
def test_from_votes_to_an_artefact(tmp_path: Path, monkeypatch, capfd, name: str, adapter: str) -> None:
    monkeypatch.chdir(tmp_path)
    model = ARCHITECTURES[name](tmp_path / "base")
    weights, processor = make_pickscore(tmp_path)
    votes = make_votes(tmp_path / "votes.parquet")
    lora = f", lora: {adapter}" if adapter else ""
    reward = f"{{use: clip-preference, weights: {weights}, processor: {processor}}}"
    Path("prompts.txt").write_text("a red circle\na blue square\n")
    Path("spec.yaml").write_text(f"""\
name: small
model: {{use: stable-diffusion, weights: {model}{lora}}}
data: {{use: pickapic, path: {votes}}}
reward: {reward}
objective: {{use: smpo, beta: 100}}
smoothing: likelihood
inversion: {{use: renoise, steps: 3, by: policy}}
train: {{steps: 2, batch: 4, lr: 1.0e-3}}
evaluate: {{prompts: {{use: text, path: prompts.txt}}, rewards: [{reward}], steps: 2}}
runtime: {{threads: 1, device: cpu, tracking: none}}
""")
    for words in (["check", "spec.yaml"], ["score", "spec.yaml"], ["run", "spec.yaml", "-q"]):
        said = smpo(capfd, *words)
        assert said.code == 0, said.err
    (run,) = Path("runs/small").glob("*-1")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[0] == pytest.approx(0.6931, abs=1e-4) and losses[-1] != losses[0], "it begins at the base"
    told = json.loads((run / "evaluation.json").read_text())
    assert len(told["judgements"]) == 1 and len(told["prompts"]) == 2

    from diffusers import DiffusionPipeline

    if not adapter:
        trained = DiffusionPipeline.from_pretrained(run / "model")
    else:
        trained = DiffusionPipeline.from_pretrained(model)
        trained.load_lora_weights(run / "model")
    picture = trained("a red circle", num_inference_steps=2, output_type="np").images[0]
    assert picture.shape[2] == 3 and picture.min() >= 0
