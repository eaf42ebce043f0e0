"""Derived numbers against the reference's own counts."""

import json
from pathlib import Path

import pytest

from smpo.app.plan.plan import make_plan
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import resolve
from tests.cli.words import SMALL_PLANE, smpo

SPECS = sorted((Path(__file__).parents[3] / "experiments").glob("*.yaml"))


@pytest.fixture
def plan(tmp_path):
    def planned(*sets: str):
        path = tmp_path / "spec.yaml"
        path.write_text(SMALL_PLANE)
        return make_plan(resolve(path, skeleton=ExperimentSpec, sets=sets))

    return planned


def test_accumulation_is_derived_from_the_global_batch(plan):
    one = plan("train.batch=64", "runtime.micro_batch=4", "runtime.devices=2")
    assert (one.devices, one.micro_batch, one.accumulate) == (2, 4, 8)
    assert plan().accumulate == 1 and plan().pairs == 4 * 16


@pytest.mark.parametrize(
    ("micro", "expected", "said"),
    [
        (5, (5, 4, 1), "the last of 4 micro-batches holds 1. The result is the same; 4 makes as many"),
        (6, (6, 3, 4), "the last of 3 micro-batches holds 4. The result is the same"),
        (32, (16, 1, 0), "32 is more than the 16 pairs that a device takes per update"),
        (8, (8, 2, 0), None),
    ],
)
def test_a_micro_batch_that_does_not_divide_is_a_word_not_an_end(plan, micro, expected, said):
    one = plan(f"runtime.micro_batch={micro}")
    assert (one.micro_batch, one.accumulate, one.ragged) == expected
    about = [warning for warning in one.warnings if "runtime.micro_batch" in warning]
    assert not about if said is None else said in about[0]


@pytest.mark.parametrize(("steps", "calls"), [(5, 7.58), (10, 12.76)])
def test_inversion_costs_what_the_official_code_costs_under_its_own_convention(plan, steps, calls):
    one = plan(f"inversion.steps={steps}", "inversion.convention=lt_0_22", "inversion.start=alpha0")
    assert one.inversion_passes == pytest.approx(calls, abs=0.01)
    assert one.passes_per_pair == pytest.approx(2 * (calls + 3 + 1), abs=0.02)


def test_no_inversion_and_no_reference_cost_nothing(plan):
    assert plan("inversion=none").passes_per_pair == 8
    assert plan("inversion=none", "objective=sft").passes_per_pair == 6


def test_what_is_lacking_in_common_is_said_once(tmp_path, monkeypatch, capfd):
    """And what isn't known of the evaluation isn't shown as nothing."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = smpo(capfd, "plan", SPECS[0].parent / "sdxl_smpo.yaml", "-s", "runtime.device=cpu")
    out = " ".join(said.out.split())
    assert said.code == 3
    assert "missing reward, evaluate.rewards.0: `yuvalkirstain/PickScore_v1`" in out
    assert out.count("`yuvalkirstain/PickScore_v1` is not in the hub's cache") == 1
    assert "missing train.precision: fp16 needs a GPU" in out
    assert "prompts that aren't here yet (untouched) × 1 × 2 models, 50 steps at guidance 5, 2 judges" in out
    assert "the only judge" not in out, "what ships doesn't call for a warning"
    a100 = next(line.split() for line in said.out.splitlines() if line.startswith("A100-80"))
    assert a100[4] == "?"
    for words in (
        "prompt_dropout 0.2",
        "flip",
        "gradient_checkpointing",
        "beta 5000.0",
        "1.024e-05",
    ):
        assert words in out


def test_a_graphics_card_is_looked_for_without_torch(plan, monkeypatch):
    def lacking(*sets: str) -> bool:
        return "train.precision" in {one.where for one in plan("train.precision=fp16", *sets).missing}

    monkeypatch.setattr("smpo.app.plan.requirements.sys.platform", "linux")
    monkeypatch.setattr("smpo.app.plan.requirements._gpu_here", lambda: True)
    assert not lacking() and lacking("runtime.device=cpu") and not lacking("runtime.device=cuda")
    monkeypatch.setattr("smpo.app.plan.requirements._gpu_here", lambda: False)
    assert lacking("runtime.device=auto")
    monkeypatch.setattr("smpo.app.plan.requirements.sys.platform", "darwin")
    assert not lacking("runtime.device=auto"), "Apple's is there without a file"


@pytest.mark.parametrize("setting", ["offload_reference", "shadow_weights"])
def test_what_does_nothing_for_a_lora_is_said(setting):
    def about(spec):
        resolved = resolve(SPECS[0].parent / spec, skeleton=ExperimentSpec, sets=[f"runtime.{setting}=true"])
        return [told for told in make_plan(resolved).warnings if setting in told]

    (told,) = about("sdxl_smpo_24gb.yaml")
    assert "does nothing for a LoRA" in told and not about("sdxl_smpo.yaml")


def test_warnings_name_what_a_careful_reader_would_ask(plan):
    assert any("only judge" in w for w in map(str, plan("evaluate.rewards=[plane-radius]").warnings))
    assert any("tuning" in w for w in map(str, plan("evaluate.prompts=plane-tuning").warnings))


def test_check_says_what_is_doubtful_and_passes(capfd):
    doubtful = ("check", "plane_smpo", "--set", "evaluate.prompts=plane-tuning")
    said = smpo(capfd, *doubtful)
    assert said.code == 0 and "plane_smpo: fine" in said.out and "  warning: the evaluation prompts are" in said.out
    (told,) = json.loads(smpo(capfd, *doubtful, "--json").out)["warnings"].values()
    assert "tuning set" in " ".join(told)
    assert json.loads(smpo(capfd, "check", "quickstart", "--json").out) == {"problems": [], "warnings": {}}


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_every_shipped_spec_is_sound(path, capfd):
    said = smpo(capfd, "check", path)
    assert said.code == 0, said.err
    data = json.loads(smpo(capfd, "plan", path, "--json").out)
    assert data["plan"]["pairs"] == data["values"]["train.steps"] * data["values"]["train.batch"]
