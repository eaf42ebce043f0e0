"""What a machine lacks is told with the commands that get it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smpo.app.obstacles import how_to_get_reward
from smpo.components.models import StableDiffusion
from smpo.components.rewards import ClipPreference, Mix, Process


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
        "`hf download a/b --revision abc`, `hf download c/d` where there is a network"
    )
    both = Mix(members=[{"reward": pinned}, {"reward": ClipPreference(weights="e/f", processor="c/d")}])
    assert advice(both).count("hf download c/d") == 1 and "`hf download e/f`" in advice(both)


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
