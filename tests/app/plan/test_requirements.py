"""What a machine lacks is told with the commands that get it."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

from smpo.components.datasets import PickAPic
from smpo.components.fetch import how_to_get_prompts, how_to_get_reward
from smpo.components.models import StableDiffusion
from smpo.components.prompts import ParquetPrompts
from smpo.components.rewards import ClipPreference, ImageReward, Mix, Process
from tests.families.conftest import make_sd, make_sdxl


@pytest.fixture(autouse=True)
def nothing_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def advice(reward: ClipPreference | Mix | Process) -> str:
    message = reward.check()
    assert message is not None
    return how_to_get_reward(reward, "reward", message)


def test_every_repository_of_a_reward_is_named_once_with_its_revision() -> None:
    pinned = ClipPreference(weights="a/b", revision="abc", processor="c/d")
    assert advice(pinned).startswith(
        "`hf download a/b --revision abc --include 'model.safetensors' --include '*.json' --include '*.txt'`, "
        "`hf download c/d --include '*.json' --include '*.txt'` where there is a network"
    )
    both = Mix(members=[{"reward": pinned}, {"reward": ClipPreference(weights="e/f", processor="c/d")}])
    assert advice(both).count("hf download c/d ") == 1 and "`hf download e/f " in advice(both)


def test_a_folder_that_is_not_there_is_not_to_be_downloaded() -> None:
    assert advice(ClipPreference(weights="./nowhere", processor="c/d")).startswith("point `reward.weights`")
    assert advice(Process(scorer="house-style")) == "choose another reward"


def test_a_folder_without_a_pipeline_is_known_before_anything_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "config.json").write_text("{}")
    assert "holds no diffusers pipeline" in (StableDiffusion(weights=str(folder)).check() or "")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    assert StableDiffusion(weights=str(folder)).check() is None
    assert "one part of a pipeline" in (StableDiffusion(weights=str(folder / "unet")).check() or "")


def test_a_copy_that_stopped_half_way_is_known_before_anything_is_loaded(tmp_path: Path) -> None:
    folder = make_sdxl(tmp_path / "model")
    assert StableDiffusion(weights=str(folder)).check() is None
    for part, file, says in (
        ("tokenizer_2", "tokenizer.json", "its words are missing"),
        ("text_encoder_2", "model.safetensors", "has no weights of its text_encoder_2"),
        ("text_encoder", "config.json", "no config.json in `text_encoder/`"),
        ("vae", "diffusion_pytorch_model.safetensors", "has no weights of its vae"),
        ("unet", "diffusion_pytorch_model.safetensors", "has no weights of its unet"),
    ):
        (folder / part / file).unlink()
        assert says in (StableDiffusion(weights=str(folder)).check() or "")
    (folder / "unet" / "diffusion_pytorch_model.bin").touch()
    assert "pickles (.bin) aren't opened" in (StableDiffusion(weights=str(folder)).check() or "")


def test_another_vae_makes_up_for_one_that_is_not_there(tmp_path: Path) -> None:
    folder = make_sd(tmp_path / "model")
    vae = shutil.move(folder / "vae", tmp_path / "vae")
    assert "config.json in `vae/`" in (StableDiffusion(weights=str(folder)).check() or "")
    assert StableDiffusion(weights=str(folder), vae=str(vae)).check() is None


def test_a_copy_of_another_revision_is_not_the_one_that_is_asked_for(tmp_path: Path, monkeypatch) -> None:
    """As the hub's cache looks: commits are folders, and names of branches are files that hold a commit."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repo, commit = tmp_path / "hub" / "models--a--b", "1" * 40
    (repo / "snapshots" / commit).mkdir(parents=True)
    (repo / "snapshots" / commit / "model.safetensors").touch()
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    for revision in (None, commit, "main"):
        assert StableDiffusion(weights="a/b", revision=revision).check() is None
        assert ClipPreference(weights="a/b", revision=revision).check() is None
    other = "2" * 40
    told = f"`a/b` is not in the hub's cache at revision {other}"
    assert told in (StableDiffusion(weights="a/b", revision=other).check() or "")
    assert f"hf download a/b --revision {other} " in advice(ClipPreference(weights="a/b", revision=other))


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_what_is_to_be_fetched_is_what_is_read_and_no_more(variant: str | None) -> None:
    """The files of SDXL's repository, of which the weights lie there five times over."""
    end = f".{variant}.safetensors" if variant else ".safetensors"
    read = {
        "model_index.json", "scheduler/scheduler_config.json", "tokenizer/merges.txt", "tokenizer_2/vocab.json",
        "unet/config.json", f"unet/diffusion_pytorch_model{end}", f"vae/diffusion_pytorch_model{end}",
        f"text_encoder/model{end}", f"text_encoder_2/model{end}",
    }  # fmt: skip
    more = {
        "sd_xl_base_1.0.safetensors", "sd_xl_base_1.0_0.9vae.safetensors", "unet/model.onnx_data",
        "unet/openvino_model.bin",
        "text_encoder_2/flax_model.msgpack", "vae_1_0/diffusion_pytorch_model.safetensors", "unet/model.onnx",
        "unet/diffusion_pytorch_model.bf16.safetensors", "text_encoder/model.bf16.safetensors",
    }  # fmt: skip
    globs = StableDiffusion(weights="a/b", variant=variant).read()["weights"]
    assert {file for file in read | more if any(fnmatch(file, glob) for glob in globs)} == read


def test_data_on_the_hub_is_told_with_the_command_that_fetches_it() -> None:
    data = PickAPic(path="a/b", revision="abc")
    assert "is not in the hub's cache" in (data.check() or "")
    assert data.remedy().startswith("`hf download a/b --repo-type dataset --revision abc` where there is a network")
    assert data.remedy().endswith("point `data.path` at the files: `--set data.path=FOLDER`")
    prompts = ParquetPrompts(path="a/b", split="validation_unique")
    assert how_to_get_prompts(prompts).startswith("`hf download a/b --repo-type dataset` where")
    assert how_to_get_prompts(ParquetPrompts(path="./nowhere")).startswith("point `evaluate.prompts.path`")


def test_a_repository_of_which_only_texts_were_fetched_lacks_its_weights(tmp_path: Path) -> None:
    """PickScore wants the texts of the very repository whose weights are a CLIP score."""
    copy = tmp_path / "hub" / "models--a--b" / "snapshots" / ("1" * 40)
    copy.mkdir(parents=True)
    (copy / "config.json").write_text("{}")
    assert ImageReward(weights="c/d", tokenizer="a/b").check() == ImageReward(weights="c/d").check(), (
        "as texts it will do"
    )
    judge = ClipPreference(weights="a/b")
    assert "`a/b` is in the hub's cache without model*.safetensors" in (judge.check() or "")
    assert advice(judge).startswith("`hf download a/b --include 'model.safetensors'")
    (copy / "model.safetensors").touch()
    assert judge.check() is None and ClipPreference(weights="a/b", processor="a/b").check() is None
