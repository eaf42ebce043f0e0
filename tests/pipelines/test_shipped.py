"""Specs that ship for true models, as they stand, on small weights of the same architecture: only places, lengths and
sizes that belong to the weights are replaced. What they ask of precision, memory and optimiser is what is run."""

import json
from pathlib import Path

import pytest

from tests.cli.words import smpo
from tests.pipelines.worlds import make_pickscore, make_sd, make_sdxl, make_votes

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped")
    make_sd(folder / "sd")
    make_sdxl(folder / "sdxl")
    make_pickscore(folder)
    make_votes(folder / "votes.parquet")
    (folder / "prompts.txt").write_text("a red circle\na blue square\n")
    return folder


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("sdxl_smpo_24gb", ["lora: {rank: 16}", "bf16"]),
        ("sdxl_smpo_80gb", ["shadow_weights: true", "selective", "bf16"]),
        ("sd15_smpo", []),
        pytest.param("sdxl_smpo", [], marks=pytest.mark.slow),
        pytest.param("sd15_recommended", ["bf16"], marks=pytest.mark.slow),
        pytest.param("sdxl_recommended", ["bf16"], marks=pytest.mark.slow),
    ],
)
def test_it_runs_to_its_end(place: Path, tmp_path: Path, monkeypatch, capfd, name: str, kept: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    lora = ", lora: {rank: 16}" if name == "sdxl_smpo_24gb" else ""
    reward = f"{{use: clip-preference, weights: {place / 'weights'}, processor: {place / 'processor'}}}"
    sets = [
        f"model={{use: stable-diffusion, weights: {place / name[:4].replace('sd15', 'sd')}{lora}}}",
        f"data={{use: pickapic, path: {place / 'votes.parquet'}}}",
        f"reward={reward}",
        f"evaluate.rewards=[{reward}]",
        f"evaluate.prompts={{use: text, path: {place / 'prompts.txt'}}}",
        "evaluate.steps=2", "train.steps=2", "train.batch=4", "train.warmup=1", "runtime.micro_batch=2",
        "runtime.tracking=none", "runtime.threads=1",
        *([] if "bf16" in kept else ["train.precision=bf16"]),  # theirs is fp16, which wants a GPU
        *(["train.holdout=2"] if name.endswith("recommended") else []),
    ]  # fmt: skip
    said = smpo(capfd, "run", EXPERIMENTS / f"{name}.yaml", "-q", *(word for one in sets for word in ("-s", one)))
    assert said.code == 0, said.err
    (run,) = Path("runs").glob("*/*-1")
    resolved = (run / "resolved.yaml").read_text()
    assert all(words.split(": {")[0] in resolved for words in kept)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[0] == pytest.approx(0.6931, abs=1e-4), "policy and reference begin alike, in 16 bits too"
    assert len(losses) == 2 and (run / "evaluation.json").is_file() and (run / "model").is_dir()
