"""The cost model against the counts it was made from, and what a plan says about disk and caches."""

import json
import shutil
import sqlite3
from collections import namedtuple
from pathlib import Path

import pytest

from smpo.app.costs import ARCHITECTURES, GPUS, Workload, estimate, known, memory_gb
from smpo.app.plan import make_plan
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import resolve
from tests.cli.words import SMALL_PLANE, smpo

HERE = Path(__file__).parents[2]
SD15, SDXL = ARCHITECTURES[:2]
A100 = next(gpu for gpu in GPUS if gpu.name == "A100-80")


def work(**changes):
    plain = {
        "pairs": 204_800, "passes_per_pair": 31.92, "encoded": 0, "sampling_passes": 0, "samples": 0, "micro_batch": 4,
        "share_of_device": 128, "precision": "fp16", "checkpointing": False, "adapter": False, "average": False,
        "state_bytes": 8.0, "reference": True,
    }  # fmt: skip
    return Workload(**{**plain, **changes})


@pytest.mark.parametrize(("network", "adafactor", "adamw"), [(SD15, 10.3, 17.2), (SDXL, 30.8, 51.3)])
def test_weights_gradients_and_state_weigh_what_was_counted(network, adafactor, adamw):
    idle = network.encoders_gb + 2 * network.activations_gb
    for state, expected in ((0.0, adafactor), (8.0, adamw)):
        assert memory_gb(network, work(state_bytes=state), 1) - idle == pytest.approx(expected, abs=0.1)


def test_the_paper_s_sdxl_hours_are_met_within_what_lock_step_explains():
    """151 A800-hours, of which the slowest of eight GPUs wastes a factor of 1.38 to 1.48."""
    one = estimate(SDXL, work(passes_per_pair=29.92, checkpointing=True), A100)
    assert 150.8 / 1.48 * 0.75 < one.hours < 150.8 / 1.38 * 1.25


def test_an_adapter_holds_one_network_and_checkpointing_trades_memory_for_time():
    full, adapter = memory_gb(SDXL, work()), memory_gb(SDXL, work(adapter=True))
    assert adapter < full - 40
    light = estimate(SDXL, work(checkpointing=True), A100)
    heavy = estimate(SDXL, work(), A100)
    assert light.memory_gb < heavy.memory_gb and light.hours > heavy.hours
    assert not heavy.fits and light.fits
    assert heavy.largest_micro_batch == 1 and 128 % light.largest_micro_batch == 0


def test_only_what_was_counted_is_known():
    assert known(859_520_964, 512) is SD15 and known(2_567_463_684, 1024) is SDXL
    assert known(859_520_964, 768) is None and known(None, None) is None


@pytest.fixture
def planned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def plan(name: str, *sets: str):
        return make_plan(resolve(HERE / "experiments" / f"{name}.yaml", skeleton=ExperimentSpec, sets=sets))

    return plan


def test_sdxl_is_planned_in_full_without_its_weights(planned):
    plan = planned("sdxl_smpo")
    assert plan.network == "SDXL at 1024 px" and plan.pairs == 204_800
    assert plan.passes_per_pair == pytest.approx(2 * (12.96 + 4)) and plan.training_tflop == pytest.approx(
        47.0e6, 0.01
    )
    hours = {one.gpu: one.hours for one in plan.gpus}
    assert hours["H200"] < hours["A100-80"] < hours["24 GB (RTX 4090)"]
    assert {one.gpu: one.fits for one in plan.gpus}["24 GB (RTX 4090)"] is False
    assert plan.disk.checkpoint == pytest.approx(10.3e9, rel=0.01), "weights and Adafactor's factors"
    assert plan.disk.downloads["stabilityai/stable-diffusion-xl-base-1.0"] == 13.9
    assert {one.where for one in plan.obstacles} >= {"model", "data", "reward", "evaluate.prompts"}


def test_latents_are_counted_as_they_are_stored(planned):
    assert planned("sd15_smpo").caches.latent_bytes == 131_072
    assert planned("sd15_smpo").caches.images == 2 * 204_800, "each pair is seen once, one way round"
    assert planned("sd15_smpo", "train.crop=random").caches.images is None


def test_a_full_disk_is_an_obstacle_and_ends_with_3(planned, monkeypatch, capfd):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 99, 10**9))
    said = smpo(capfd, "plan", HERE / "experiments" / "sd15_smpo.yaml")
    assert said.code == 3 and "where 1.0 GB are free" in said.out
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**13, 0, 90 * 10**9))
    plan = planned("sd15_smpo")
    assert "disk" not in {one.where for one in plan.obstacles}
    assert any("may be written" in warning for warning in plan.warnings)


def test_what_a_run_has_cached_is_known_to_the_next_plan(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL_PLANE)
    before = json.loads(smpo(capfd, "plan", "small.yaml", "--json").out)["plan"]["caches"]
    assert (before["scores_stored"], before["images_stored"], before["known_from_a_run"]) == (0, 0, False)
    assert smpo(capfd, "run", "small.yaml", "-q").code == 0
    said = smpo(capfd, "plan", "small.yaml", "--json")
    after = json.loads(said.out)["plan"]["caches"]
    assert after["scores_complete"] and after["scores_stored"] > 0
    assert after["images_stored"] > 0 and after["latent_bytes"] > 0 and after["prompts_stored"] > 0
    assert "all cached" in smpo(capfd, "plan", "small.yaml").out
    other = json.loads(smpo(capfd, "plan", "small.yaml", "--json", "-s", "reward=plane-on-axis").out)
    assert other["plan"]["caches"]["scores_stored"] == 0


def test_a_cache_that_cannot_be_read_is_no_reason_not_to_plan(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL_PLANE)
    Path("runs/cache").mkdir(parents=True)
    Path("runs/cache/recipes.db").write_bytes(b"not a database at all, whatever its name says")
    assert smpo(capfd, "plan", "small.yaml").code == 0
    Path("runs/cache/recipes.db").unlink()
    sqlite3.connect("runs/cache/recipes.db").close()
    assert smpo(capfd, "plan", "small.yaml").code == 0
