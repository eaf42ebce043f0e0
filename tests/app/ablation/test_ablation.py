"""`ablation:` from the file to the table: mistakes have lines, finished runs are reused, a failure costs itself
alone."""

import json
import signal
import subprocess
import sys

import pytest

from smpo.app.ablation.spec import read_ablation
from smpo.diagnostics.render import render
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import resolve
from smpo.spec.problems import SpecProblems
from tests.cli.words import SMALL_PLANE, smpo

ABLATION = """
ablation:
  seeds: 2
  variants:
    - name: DPO
    - name: + inversion
      set: {inversion: {use: ddim, steps: 2, by: reference}}
    - name: slow
      from: base
      set:
        train.lr: 1e-6
"""
BASE = (
    SMALL_PLANE.replace("{use: smpo, beta: 500}", "{use: dpo, beta: 500}")
    .replace("smoothing: likelihood", "smoothing: hard")
    .replace("{use: renoise, steps: 4, by: reference}", "none")
    .replace("steps: 4, batch", "steps: 2, batch")
)


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(BASE + ABLATION)
    return path


def ablation(path, *sets):
    return read_ablation(path, resolve(path, skeleton=ExperimentSpec, sets=sets), sets=sets)


def complaint(path) -> str:
    with pytest.raises(SpecProblems) as caught:
        ablation(path)
    return render(caught.value.problems)


def test_variants_build_on_each_other_or_on_the_base(spec):
    found = ablation(spec)
    first, second, third = found.variants
    assert [variant.against for variant in found.variants] == [None, "DPO", "DPO"]
    assert first.resolved.identity == found.base.identity, "the ablation is no setting"
    assert second.resolved.spec.inversion.use == "ddim"
    assert third.resolved.spec.inversion.use == "none" and third.resolved.spec.train.lr == 1e-6
    again = found.resolve(second, 1)
    assert again.spec.train.seed == 1 and again.identity.group_hash == second.resolved.identity.group_hash
    line = spec.read_text().splitlines().index("      set: {inversion: {use: ddim, steps: 2, by: reference}}") + 1
    assert found.resolve(second, 0).origins["inversion.steps"] == f"small.yaml:{line}"


def test_sets_reach_every_variant(spec):
    assert {variant.resolved.spec.train.batch for variant in ablation(spec, "train.batch=8").variants} == {8}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("steps: 2, by", "stps: 2, by", "`stps` is not a setting of inversion `ddim`"),
        ("from: base", "from: bsae", "no earlier variant is called `bsae`"),
        ("name: slow", "name: DPO", "two variants are called `DPO`"),
        ("train.lr: 1e-6", "evaluate.guidance: 1", "all variants of an ablation are judged alike"),
        ("train.lr: 1e-6", "train.lr: fast", "`fast`"),
        ("seeds: 2", "seeds: 0", "`seeds` should be at least 1"),
        ("seeds: 2", "sedes: 2", "`sedes` is not a setting"),
        ("from: base", "form: base", "`form` is not a setting"),
    ],
)
def test_mistakes_are_found_before_anything_runs(spec, capfd, old, new, says):
    text = BASE + ABLATION
    assert text.count(old) == 1
    spec.write_text(text.replace(old, new))
    line = text[: text.index(old)].count("\n") + 1
    said = complaint(spec)
    assert says in said and f"small.yaml:{line}:" in said, said
    ran = smpo(capfd, "run", spec)
    assert ran.code == 2 and says in ran.err and not (spec.parent / "runs").exists()


def test_a_ablation_ends_in_a_table_and_is_not_run_twice(spec, capfd):
    said = smpo(capfd, "run", spec)
    assert said.code == 0, said.err
    assert "[6/6] slow, seed 1" in said.err and "on DPO" in said.out and "plane-on-axis" in said.out
    (folder,) = spec.parent.glob("runs/small/ablation-*")
    outcome = json.loads((folder / "ablation.json").read_text())
    assert outcome["complete"] and [variant["seeds"] for variant in outcome["variants"]] == [[0, 1]] * 3
    dpo, inverted, slow = outcome["variants"]
    assert [far["name"] for far in dpo["drift"]] == [
        "picture",
        "error",
    ] and "distance from the base" in said.out
    assert 0 < slow["drift"][1]["mean"] < dpo["drift"][1]["mean"], "a lower rate goes less far"
    judge = inverted["judges"][0]
    assert judge["against_variant"]["prompts"] == 32 and judge["against_base"]["win_rate"]["seeds"] is not None
    assert dpo["cost"]["passes"] < inverted["cost"]["passes"] and dpo["cost"]["pairs"] == 32
    for name in ("ablation.md", "ablation.csv", "ablation.png"):
        assert (folder / name).stat().st_size > 0
    assert len((folder / "ablation.csv").read_text().splitlines()) == 1 + 3 * 2

    runs = sorted(spec.parent.glob("runs/small/*-1"))
    times = [(run / "evaluation.json").stat().st_mtime_ns for run in runs]
    told = (folder / "metrics.jsonl").read_text()
    assert smpo(capfd, "run", spec, "-q").code == 0
    assert (folder / "metrics.jsonl").read_text() == told and told.count("\n") == 1, "what is known isn't told again"
    assert [(run / "evaluation.json").stat().st_mtime_ns for run in runs] == times and len(runs) == 6
    assert smpo(capfd, "run", spec, "--set", "train.seed=1", "-q").code == 0
    assert len(list(spec.parent.glob("runs/small/*-1"))) == 9, "only seed 2 was new"


def test_one_variant_that_fails_costs_itself_alone(spec, capfd, monkeypatch):
    import smpo.app.ablation.worker as module

    run = module.run

    def failing(resolved, *arguments, **named):
        if resolved.spec.inversion.use == "ddim" and resolved.spec.train.seed == 1:
            raise RuntimeError("out of luck")
        return run(resolved, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(module, "run", failing)
        said = smpo(capfd, "run", spec)
    assert said.code == 0 and "out of luck" in said.err and "failed in part: + inversion" in said.err
    (folder,) = spec.parent.glob("runs/small/ablation-*")
    variants = json.loads((folder / "ablation.json").read_text())["variants"]
    assert [variant["seeds"] for variant in variants] == [[0, 1], [0], [0, 1]] and "out of luck" in variants[1][
        "failures"
    ]["1"]
    assert smpo(capfd, "run", spec, "-q").code == 0
    assert json.loads((folder / "ablation.json").read_text())["complete"], "it is tried again"


def test_several_processes_share_the_work(spec, capfd):
    said = smpo(capfd, "run", spec, "--jobs", "2", "--seeds", "1")
    assert said.code == 0, said.err
    assert len(list(spec.parent.glob("runs/small/*-1"))) == 3, "helpers know of `--seeds` too"
    (folder,) = spec.parent.glob("runs/small/ablation-*")
    assert json.loads((folder / "ablation.json").read_text())["complete"]


def test_the_number_of_seeds_has_an_option_of_its_own(spec, capfd):
    said = smpo(capfd, "run", spec, "--set", "ablation.seeds=1")
    assert said.code == 2 and "`smpo run --seeds N`" in said.err
    spec.write_text(BASE)
    said = smpo(capfd, "run", spec, "--seeds", "2")
    assert said.code != 0 and "has no `ablation:` block" in said.err and "train.seed" in said.err


def test_runs_are_filed_under_one_parent(spec, capfd):
    assert smpo(capfd, "run", spec, "-q", "--set", "runtime.tracking=sqlite:///track.db").code == 0
    import mlflow

    client = mlflow.MlflowClient(tracking_uri="sqlite:///track.db")
    (experiment,) = [one for one in client.search_experiments() if one.name == "small"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags.get("smpo.kind") == "ablation"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 6 and len(runs) == 7
    assert {run.data.tags["smpo.variant"] for run in children} == {"DPO", "+ inversion", "slow"}
    assert any(name.startswith("ablation/") for name in parent.data.metrics)


LOADING = """
import os, signal, sys
from smpo.app.ablation.worker_main import main

class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "smpo.app.ablation.worker":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupted())
main("{}")
"""


def test_a_helper_that_is_interrupted_while_it_loads_says_nothing():
    ended = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")
