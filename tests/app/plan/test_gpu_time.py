"""The cost model against the counts it was made from, and what a plan says about disk and caches."""

import json
import shutil
import sqlite3
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from smpo.app.ablation.cost import ablation_cost
from smpo.app.ablation.spec import read_ablation
from smpo.app.plan.forward_passes import DECODE_MS, PLACE_MS, PREPROCESS_MS
from smpo.app.plan.gpu_time import estimate
from smpo.app.plan.plan import make_plan
from smpo.app.plan.workload import ARCHITECTURES, GPUS, Workload, known
from smpo.app.sweep.cost import estimate as estimate_sweep
from smpo.app.sweep.request import SweepRequest, resolve_sweep
from smpo.components.model_facts import Found
from smpo.components.rewards.facts import blip_tflop, clip_tflop
from smpo.experiment import ExperimentSpec
from smpo.kinds import Runtime
from smpo.registry.resolve import resolve
from tests.cli.words import SMALL_PLANE, smpo
from tests.families.published import SDXL as SDXL_CONFIG
from tests.families.published import on_meta

HERE = Path(__file__).parents[3]
SD15, SDXL = ARCHITECTURES[:2]
A100 = next(gpu for gpu in GPUS if gpu.name == "A100-80")


def work(**changes):
    plain = {
        "pairs": 204_800, "passes_per_pair": 31.92, "encoded": 0, "sampling_passes": 0, "samples": 0,
        "diagnosis_passes": 0, "scoring_tflop": 0, "judging_tflop": 0, "micro_batch": 4, "levels": 1,
        "share_of_device": 128, "precision": "fp16", "checkpointing": False, "trainable": None, "average": False,
        "state_bytes": 8.0, "reference": True,
    }  # fmt: skip
    return Workload(**{**plain, **changes})


def test_the_paper_s_sdxl_hours_are_met_within_what_lock_step_explains():
    """151 A800-hours, of which the slowest of eight GPUs wastes a factor of 1.38 to 1.48."""
    one = estimate(SDXL, work(passes_per_pair=29.92, checkpointing=True), A100)
    assert 150.8 / 1.48 * 0.75 < one.hours < 150.8 / 1.38 * 1.25


def test_several_levels_of_a_pair_take_as_many_passes():
    slow, slower = (estimate(SDXL, work(checkpointing=True, levels=n, passes_per_pair=n * 31.92), A100) for n in (1, 4))
    assert slower.seconds_per_pair == pytest.approx(4 * slow.seconds_per_pair)


def test_hours_are_a_sum_of_what_comes_before_during_and_after():
    bare = estimate(SDXL, work(), A100)
    assert (bare.preparing_hours, bare.judging_hours) == (0, 0) and bare.hours == bare.training_hours
    scored = estimate(SDXL, work(encoded=1000, scoring_tflop=500.0), A100)
    drawn = estimate(SDXL, work(sampling_passes=5000, samples=50, judging_tflop=20.0), A100)
    watched = estimate(SDXL, work(diagnosis_passes=5000), A100)
    assert scored.preparing_hours > 0 and scored.judging_hours == 0
    assert drawn.judging_hours > watched.judging_hours > 0 == drawn.preparing_hours
    for one in (scored, drawn, watched):
        assert one.training_hours == bare.training_hours
        assert one.hours == pytest.approx(one.training_hours + one.preparing_hours + one.judging_hours)


COUNTED = json.loads((HERE / "benchmarks" / "results" / "costs.json").read_text())


@pytest.mark.parametrize(
    ("name", "pixels", "network"),
    [("SD 1.5", 512, SD15), ("SDXL", 1024, SDXL), ("SDXL at 512 px", 512, ARCHITECTURES[2])],
)
def test_tables_hold_what_was_counted(name, pixels, network):
    counted, vae = COUNTED["unets"][name], COUNTED["vae"][str(pixels)]
    assert (network.parameters, network.forward_tflop) == (counted["parameters"], counted["forward_tflop"])
    assert network.encode_tflop == pytest.approx(vae["encode_tflop"], rel=0.01)
    assert network.decode_tflop == pytest.approx(vae["decode_tflop"], rel=0.01)
    for target, (inputs, outputs) in counted["adapters"].items():
        found = Found(parameters=counted["parameters"])
        assert found.adapter_size(4, [target], dora=True) == 4 * (inputs + outputs) + outputs


def test_scorers_cost_what_the_counter_counts():
    from torch.utils.flop_counter import FlopCounterMode

    from smpo.rewards.networks.blip import BertShape, CrossBert, VisionTransformer

    for name, place in (
        ("CLIP ViT-L/14", "openai/clip-vit-large-patch14"),
        ("CLIP ViT-H/14", "yuvalkirstain/PickScore_v1"),
    ):
        counted = COUNTED["scorers"][name]
        assert clip_tflop(place, words=False) == pytest.approx(counted["picture_tflop"], rel=0.01)
        assert clip_tflop(place) == pytest.approx(counted["picture_tflop"] + counted["prompt_tflop"], rel=0.01)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        eye = VisionTransformer(side=224, patch=16, width=1024, depth=24, heads=16, inner=4096)
        words = CrossBert(BertShape(seen=1024))
        words(
            torch.zeros(1, 35, dtype=torch.long),
            torch.ones(1, 35, dtype=torch.long),
            eye(torch.empty(1, 3, 224, 224)),
        )
    assert blip_tflop() == pytest.approx(counter.get_total_flops() / 1e12, rel=0.01)
    assert clip_tflop("smpo:worlds/shapes/weights/reward") < 0.001 and clip_tflop("somebody/else") is None


@pytest.mark.parametrize("lora", ["{rank: 4}", "{rank: 3, dora: true}", "{rank: 2, targets: [to_q, ff.net.2, conv1]}"])
def test_an_adapter_is_as_large_as_planned(planned, lora):
    resolved = resolve(HERE / "experiments" / "quickstart.yaml", skeleton=ExperimentSpec, sets=[f"model.lora={lora}"])
    facts = resolved.spec.model.facts()
    policy = resolved.spec.model.load(Runtime()).policy
    assert facts.adapter
    assert facts.trainable == sum(one.numel() for one in policy.parameters() if one.requires_grad)
    assert planned("quickstart", f"model.lora={lora}").disk.checkpoint == facts.trainable * 12


def test_a_lora_s_checkpoints_are_small_and_an_unknown_target_is_not_guessed(planned):
    whole, adapter = planned("sd15_smpo"), planned("sd15_smpo", "model.lora.rank=16")
    assert adapter.trainable == 16 * (6 * 24_960 + 2 * 24_768)
    assert adapter.disk.checkpoint < whole.disk.checkpoint / 200 and adapter.disk.model < 30e6
    assert planned("sd15_smpo", "model.lora={rank: 16, targets: [to_x]}").disk.checkpoint is None


def test_what_the_estimate_leaves_out_is_said(planned):
    plan = planned("sdxl_smpo", "smoothing=likelihood")
    assert any("whose number can't be known" in words for words in plan.uncounted)
    other = planned("sdxl_smpo", "reward={use: clip-preference, weights: somebody/else}")
    assert any("scoring the pairs by `clip-preference`" in words for words in other.uncounted)


def test_preparation_is_counted_from_what_is_visited(planned):
    one = planned("sdxl_smpo", "reward.precision=fp16").preparation
    visits = 204_800
    assert (one.scored, one.encoded, one.portions) == (2 * visits, 2 * visits, 100)
    each = DECODE_MS + (PREPROCESS_MS + PLACE_MS) / 2
    assert one.core_hours == pytest.approx(4 * visits * each / 3.6e6)
    assert one.encode_tflop == pytest.approx(2 * visits * 4.879) and one.score_tflop > 0
    whole = planned("sdxl_smpo")
    half = planned("sdxl_smpo", "reward.precision=fp16")
    assert half.gpus[-1].preparing_hours < whole.gpus[-1].preparing_hours
    first = planned("sdxl_smpo", "runtime.prepare=first").preparation
    assert first.portions == 1 and first.scored == one.scored
    few = planned("sdxl_smpo", "train.holdout=100").preparation
    assert few.scored == 2 * (visits + 100)


def test_what_a_picture_takes_is_what_was_measured():
    told = json.loads((HERE / "benchmarks" / "results" / "preparation.json").read_text())["pictures"]
    found = [DECODE_MS, PREPROCESS_MS, PLACE_MS]
    assert found == [told[f"{name}_ms"] for name in ("decode", "preprocess", "place")]


def test_scores_of_pairs_that_are_never_visited_are_a_warning(planned, capfd):
    few = ("train.steps=5", "train.holdout=0")
    (said,) = [one for one in planned("quickstart", *few).warnings if "are scored though" in one]
    assert "80 visits" in said and "set `smoothing.low` and `smoothing.high`" in said
    ranged = planned("quickstart", *few, "smoothing.low=0", "smoothing.high=1")
    assert not any("are scored though" in one for one in ranged.warnings)
    said = smpo(capfd, "plan", HERE / "experiments" / "quickstart.yaml", "-s", "train.steps=5").out
    assert "images to score (all pairs)" in said


def test_previews_are_counted(planned):
    spec = "quickstart"
    none, some = planned(spec, "runtime.preview_every=null"), planned(spec, "runtime.preview_every=20")
    assert none.preview_passes == 0
    assert some.preview_passes == 3 * 8 * 10 * 2, "before training, after 20 and 40 of 60; 10 steps with guidance"


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
    assert plan.passes_per_pair == pytest.approx(2 * (12.96 + 4)) and plan.training_tflop == pytest.approx(47.0e6, 0.01)
    hours = {one.gpu: one.hours for one in plan.gpus}
    assert hours["H200"] < hours["A100-80"] < hours["24 GB (RTX 4090)"]
    assert {one.gpu: one.fits for one in plan.gpus}["24 GB (RTX 4090)"] is False
    shapes = [p.shape for p in on_meta(SDXL_CONFIG).parameters()]
    state = sum(one[:-1].numel() + (one[:-2] + one[-1:]).numel() if len(one) > 1 else one.numel() for one in shapes)
    weights = sum(one.numel() for one in shapes)
    assert plan.disk.checkpoint == pytest.approx(4 * (weights + state), rel=1e-3), "Adafactor's rows and columns"
    assert plan.disk.downloads["stabilityai/stable-diffusion-xl-base-1.0"] == 13.9
    assert {one.where for one in plan.missing} >= {"model", "data", "reward", "evaluate.prompts"}


def test_no_hours_for_a_gpu_on_which_not_even_one_pair_fits(planned, capfd):
    """SDXL trained whole with AdamW needs more than 24 GB for its weights alone."""
    words = ["runtime.device=cpu", "train.optimiser=adamw"]
    plan = planned("sdxl_smpo", *words)
    small = next(cost for cost in plan.gpus if cost.gpu == "24 GB (RTX 4090)")
    assert small.largest_micro_batch is None
    sets = [word for one in words for word in ("-s", one)]
    lines = smpo(capfd, "plan", HERE / "experiments" / "sdxl_smpo.yaml", *sets).out.splitlines()
    (line,) = (line for line in lines if line.startswith(small.gpu))
    rest = line.removeprefix(small.gpu).split()
    assert rest[:5] == ["–"] * 5 and rest[5] == f"{small.memory_gb:.0f}" and "too large even for one pair" in line
    (line,) = (line for line in lines if line.startswith("H200"))
    assert "–" not in line


def test_a_ablation_is_added_up(planned, capfd):
    """Variants may be many times as long as the spec that they vary: 40 levels a pair, or 2,000 updates of 2,048.

    A pair at 40 levels of SDXL fits no GPU, so no GPU has hours for the whole table.
    """
    words = ["plan", HERE / "experiments" / "paper_sdxl.yaml", "-s", "runtime.device=cpu"]
    said = json.loads(smpo(capfd, *words, "--json").out)
    ablation, plan = said["ablation"], said["plan"]
    passes = {variant["name"]: variant["passes"] for variant in ablation["variants"]}
    assert passes["Diffusion-DPO"] == plan["total_passes"] == 8 * 204_800
    assert passes["Diffusion-DPO as published"] == 8 * 2000 * 2048
    assert ablation["total_passes"] == sum(passes.values()) and ablation["runs"] == 9
    assert ablation["gpu_hours"] == {}
    assert "GPU-hours of all" not in smpo(capfd, *words).out

    for name in ("sdxl_smpo", "paper_sdxl"):
        text = (HERE / "experiments" / f"{name}.yaml").read_text()
        Path(f"{name}.yaml").write_text(text.split("    - name: Inversion-DPO\n")[0])
    words[1] = Path("paper_sdxl.yaml")
    ablation = json.loads(smpo(capfd, *words, "--json").out)["ablation"]
    one = next(gpu for gpu in plan["gpus"] if gpu["gpu"] == "H100")
    expected = one["training_hours"] * ablation["total_passes"] / plan["total_passes"]
    published = planned("paper_sdxl", "train.steps=2000", "train.batch=2048", "runtime.device=cpu")
    expected += next(cost.preparing_hours for cost in published.gpus if cost.gpu == "H100")
    assert ablation["gpu_hours"]["H100"] == pytest.approx(expected, rel=0.05), "training, and the most scores once"
    out = " ".join(smpo(capfd, *words).out.split())
    assert "8 variants × 1 seed = 8 runs" in out and f"{ablation['gpu_hours']['H100']:,.0f} on H100" in out


def test_sums_leave_out_a_gpu_on_which_one_of_the_runs_fits_at_no_micro_batch(tmp_path, monkeypatch):
    """SD1.5 with an average of its weights fits 24 GB in smaller micro-batches with 8-bit AdamW, not with AdamW."""
    monkeypatch.chdir(tmp_path)
    text = (HERE / "experiments" / "sd15_smpo.yaml").read_text().replace("train:\n", "train:\n  ema: 0.99\n")
    small = "24 GB (RTX 4090)"
    spec = Path("varied.yaml")

    def hours_of_ablation(optimiser: str) -> dict[str, float]:
        first, second = (f"{{name: {use}, set: {{train.optimiser: {use}}}}}" for use in ("adafactor", optimiser))
        spec.write_text(f"{text}\nablation: {{seeds: 1, variants: [{first}, {second}]}}\n")
        return ablation_cost(read_ablation(spec, resolve(spec, skeleton=ExperimentSpec))).hours

    def hours_of_sweep(optimiser: str) -> dict[str, float]:
        search = f"{{train.optimiser: {{choice: [adafactor, {optimiser}]}}}}"
        spec.write_text(f"{text}\nsweep: {{maximise: eval/pickscore/gain, search: {search}}}\n")
        return estimate_sweep(resolve_sweep(SweepRequest(spec))).gpu_hours

    for hours_of in (hours_of_ablation, hours_of_sweep):
        fitting = hours_of("adamw-8bit")
        assert small in fitting
        assert set(fitting) - set(hours_of("adamw")) == {small}


def test_latents_are_counted_as_they_are_stored(planned):
    assert planned("sd15_smpo").caches.latent_bytes == 2 * 2 * 4 * 64 * 64, (
        "mean and deviation, in 16 bits as its networks compute"
    )
    assert planned("sd15_smpo").caches.images == 2 * 204_800, "each pair is seen once, one way round"
    assert planned("sd15_smpo", "train.crop=random").caches.images is None


def test_what_evaluations_and_inversions_keep_is_counted(planned, tmp_path):
    """The base's pictures, at most as large as their pixels; and of each image at each visit three latents."""
    (tmp_path / "prompts.txt").write_text("a cat\na dog\na hen\n")
    prompts = f"evaluate.prompts={{use: text, path: {tmp_path / 'prompts.txt'}}}"
    plain = planned("sdxl_smpo", prompts, "evaluate.images=2").disk
    assert plain.pictures == 3 * 2 * 1024 * 1024 * 3 and plain.inversions is None
    tall = planned("sdxl_smpo", prompts, "evaluate.sizes=[[512, 1024]]").disk
    assert tall.pictures == 3 * 512 * 1024 * 3
    assert planned("sdxl_smpo").disk.pictures == 0, "nobody knows how many prompts there will be"
    kept = planned("sdxl_smpo", prompts, "evaluate.images=2", "inversion.by=reference", "runtime.reuse_inversions=true")
    assert kept.disk.inversions == 204_800 * 2 * 3 * 4 * 4 * 128 * 128
    assert kept.disk.total == plain.total + kept.disk.inversions
    assert planned("sdxl_smpo", "runtime.reuse_inversions=true").disk.inversions is None, "the policy inverts"


def test_a_full_disk_is_an_obstacle_and_ends_with_3(planned, monkeypatch, capfd):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 99, 10**9))
    said = smpo(capfd, "plan", HERE / "experiments" / "sd15_smpo.yaml")
    assert said.code == 3 and "where 1.0 GB are free" in said.out
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**13, 0, 70 * 10**9))
    plan = planned("sd15_smpo")
    assert "disk" not in {one.where for one in plan.missing}
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
