"""Derived numbers against the reference's own counts."""

import json
from pathlib import Path

import pytest

from smpo.app.plan import make_plan
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import resolve
from tests.cli.words import SMALL_PLANE, smpo

SPECS = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))


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


def test_warnings_name_what_a_careful_reader_would_ask(plan):
    assert any("only judge" in w for w in map(str, plan("evaluate.rewards=[plane-radius]").warnings))
    assert any("tuning" in w for w in map(str, plan("evaluate.prompts=plane-tuning").warnings))


def test_check_says_what_is_doubtful_and_passes(capfd):
    doubtful = ("check", "plane_smpo", "--set", "evaluate.prompts=plane-tuning")
    said = smpo(capfd, *doubtful)
    assert (
        said.code == 0
        and "plane_smpo: fine" in said.out
        and "  warning: the evaluation prompts are" in said.out
    )
    (told,) = json.loads(smpo(capfd, *doubtful, "--json").out)["warnings"].values()
    assert "tuning set" in " ".join(told)
    assert json.loads(smpo(capfd, "check", "quickstart", "--json").out) == {"problems": [], "warnings": {}}


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_every_shipped_spec_is_sound(path, capfd):
    said = smpo(capfd, "check", path)
    assert said.code == 0, said.err
    data = json.loads(smpo(capfd, "plan", path, "--json").out)
    assert data["plan"]["pairs"] == data["values"]["train.steps"] * data["values"]["train.batch"]
