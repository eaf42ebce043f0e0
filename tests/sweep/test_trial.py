"""A real trial: rungs, verdicts, remembered inversions, and what a sweep of them leaves."""

import json
import threading
import time
from pathlib import Path

import pytest

from smpo.app.plan.plan import make_plan
from smpo.app.run.run import run
from smpo.app.sweep.workers.messages import TrialJob, read_json, rung_file, verdict_file, write_json
from smpo.app.sweep.workers.trial import perform
from smpo.data.cache.maintenance import clean, entries
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import resolve
from smpo.runs.store import RunFolder
from smpo.sweep.spec import FIGURES
from smpo.tracking.jsonl import read_metrics
from tests.sweep.words import SWEEP, Quiet, small, write


class Silent(Quiet):
    phase = progress = step = lambda self, *_: None


def order_of(folder, *sets, **more) -> Path:
    file = write(folder)
    sets = [f"runtime.runs={folder / 'runs'}", f"runtime.cache={folder / 'cache'}", *sets]
    found = resolve(file, skeleton=ExperimentSpec, sets=sets)
    order = TrialJob(str(file), str(folder / "answer.json"), found.identity.spec_hash, sets=sets, **more)
    (folder / "order.json").write_text(order.to_json())
    return folder / "order.json"


def answering(folder, verdict):
    """Whoever looks after the trial: answers its first rung."""

    def watch():
        until = time.monotonic() + 300
        while time.monotonic() < until:
            where = read_json(folder / "answer.json").get("folder")
            if where and rung_file(Path(where), 2).exists():
                write_json(verdict_file(Path(where), 2), verdict)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_a_hopeless_trial_ends_at_its_rung_as_pruned(tmp_path):
    answering(tmp_path, {"go": False, "reason": "behind the others"})
    assert perform(order_of(tmp_path, rungs=[2], rung_prompts=8, rung_steps=3)) == 0
    answer = read_json(tmp_path / "answer.json")
    assert (answer["state"], answer["message"]) == ("pruned", "behind the others")
    folder = RunFolder(Path(answer["folder"]))
    assert folder.status().state == "pruned" and folder.status().message == "behind the others"
    points = read_metrics(folder.path)
    assert max(point.step for point in points) == 2, "training stopped there"
    assert any("rung/plane-radius/gain" in point.values for point in points)
    scores = json.loads(rung_file(folder.path, 2).read_text())["scores"]["plane-radius"]
    assert len(scores) == 8
    events = [json.loads(line) for line in (folder.path / "events.jsonl").read_text().splitlines()]
    assert events[-1]["status"] == "pruned"


@pytest.mark.parametrize("every", [1, 3], ids=["training looks too", "only the rung looks"])
def test_held_out_pairs_are_asked_at_rungs_and_nothing_is_sampled_for_it(tmp_path, every):
    answering(tmp_path, {"go": False, "reason": "behind the others"})
    sets = ("train.holdout=12", f"runtime.diagnose_every={every}")
    assert perform(order_of(tmp_path, *sets, rungs=[2], rung_prompts=0)) == 0
    folder = Path(read_json(tmp_path / "answer.json")["folder"])
    found = json.loads(rung_file(folder, 2).read_text())
    assert not [name for name in found["figures"] if name.startswith("rung/")]
    assert 0 <= found["figures"]["holdout/accuracy"] <= 1
    margins = found["scores"]["holdout"]
    assert len(margins) == 12
    assert sum(margins) / 12 == pytest.approx(found["figures"]["holdout/margin"])
    points = [p for p in read_metrics(folder) if p.step == 2 and "holdout/accuracy" in p.values]
    assert [p.values["holdout/accuracy"] for p in points] == [found["figures"]["holdout/accuracy"]], "once"
    cost = json.loads((folder / "cost.json").read_text())
    assert "sample" not in cost["passes"] and cost["passes"]["diagnose"] > 0 and cost["pairs"] == 2 * 16


def test_rungs_change_nothing_of_a_trial_that_goes_on(tmp_path):
    for name in ("watched", "alone"):
        (tmp_path / name).mkdir()
    answering(tmp_path / "watched", {"go": True, "reason": ""})
    assert perform(order_of(tmp_path / "watched", rungs=[2], rung_prompts=8, rung_steps=3)) == 0
    assert perform(order_of(tmp_path / "alone")) == 0
    found = []
    for name in ("watched", "alone"):
        answer = read_json(tmp_path / name / "answer.json")
        assert answer["state"] == "done"
        evaluation = json.loads((Path(answer["folder"]) / "evaluation.json").read_text())
        found.append([judgement["policy"] for judgement in evaluation["judgements"]])
    assert found[0] == found[1]
    # The same order again finds the finished run, and runs nothing.
    assert perform(tmp_path / "alone" / "order.json") == 0
    assert read_json(tmp_path / "alone" / "answer.json")["state"] == "reused"
    # A spec that was edited meanwhile is refused.
    (tmp_path / "alone" / "small.yaml").write_text(
        (tmp_path / "alone" / "small.yaml").read_text().replace("steps: 6", "steps: 7")
    )
    assert perform(tmp_path / "alone" / "order.json") == 1
    assert "was changed" in read_json(tmp_path / "alone" / "answer.json")["message"]


def test_remembered_inversions_are_the_very_same(tmp_path):
    def results(sets):
        found = resolve(write(tmp_path), skeleton=ExperimentSpec, sets=[f"runtime.cache={tmp_path / 'cache'}", *sets])
        folder = run(found, make_plan(found), Silent()).folder
        evaluation = json.loads((folder / "evaluation.json").read_text())
        told = [point.values for point in read_metrics(folder)]
        passes = {
            name: [point[f"cost/passes_{name}"] for point in told if f"cost/passes_{name}" in point][-1]
            for name in ("invert", "reference")
        }
        return [one["policy"] for one in evaluation["judgements"]], passes

    plain, spent = results([f"runtime.runs={tmp_path / 'a'}"])
    keeping = ["runtime.reuse_inversions=true"]
    first, _ = results([f"runtime.runs={tmp_path / 'b'}", *keeping])
    again, saved = results([f"runtime.runs={tmp_path / 'c'}", *keeping])
    assert plain == first == again
    assert len(list((tmp_path / "cache" / "inverted").rglob("*.safetensors"))) == 4  # one an update
    assert spent["invert"] > 0 and saved["invert"] == 0
    assert spent["reference"] > 0 and saved["reference"] == 0, "six forwards a pair are left: the policy's own"
    assert len(list((tmp_path / "cache" / "referred").rglob("*.safetensors"))) == 4
    # Another objective inverts the same pairs; another seed, or the policy's own path, does not.
    results([f"runtime.runs={tmp_path / 'd'}", *keeping, "objective.beta=900", "train.lr=3e-4", "smoothing=hard"])
    assert len(list((tmp_path / "cache" / "inverted").rglob("*.safetensors"))) == 4
    results([f"runtime.runs={tmp_path / 'e'}", *keeping, "train.seed=1"])
    assert len(list((tmp_path / "cache" / "inverted").rglob("*.safetensors"))) == 8
    _, other = results([f"runtime.runs={tmp_path / 'f'}", *keeping, "inversion.by=policy"])
    assert other["reference"] == spent["reference"]
    kept = {one.kind: one.rows for one in entries(tmp_path / "cache")}
    assert kept["inverted"] == kept["referred"] == 8
    assert clean(tmp_path / "cache", ["referred"])[0] == 8
    assert "referred" not in {one.kind for one in entries(tmp_path / "cache")}
    assert len(list((tmp_path / "cache" / "inverted").rglob("*.safetensors"))) == 8


def test_known_figures_are_those_of_an_evaluation():
    from smpo.evaluation.results import evaluation as result

    assert FIGURES == result.CURVES


@pytest.mark.slow
@pytest.mark.parametrize("fork", [True, False])
def test_a_sweep_of_real_trials(tmp_path, fork):
    from dataclasses import replace

    from smpo.app.sweep.finish import conclude
    from smpo.app.sweep.worker import sweep

    block = (
        SWEEP
        + "  rungs: {at: [2], prompts: 16, steps: 3}\n  prune: {use: wilcoxon, startup: 8, p: 0.2}\n"
        + "  confirm: {seeds: 2}\n"
    )
    prepared = small(tmp_path, block, trials=4, jobs=2, sets=("runtime.tracking=null",))
    prepared = replace(prepared, wish=replace(prepared.request, fork=fork))
    screen = Quiet()
    ending = sweep(prepared, screen, lambda one, c: conclude(one, c, screen, best=tmp_path / "best.yaml"))
    assert ending.why == "finished" and ending.counts.finished == 4, screen.said
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    parents = {one.data.tags["smpo.role"]: one for one in runs if "smpo.role" in one.data.tags}
    assert set(parents) == {"sweep", "confirmation"}
    children = [one for one in runs if one.data.tags.get("mlflow.parentRunId") == parents["sweep"].info.run_id]
    assert {one.data.tags["smpo.trial"] for one in children} == {"0", "1", "2", "3"}
    assert {one.info.status for one in children} <= {"FINISHED", "KILLED"}
    assert parents["sweep"].info.status == "FINISHED"
    names = {one.path for one in client.list_artifacts(parents["sweep"].info.run_id)}
    assert {"report.html", "trials.csv", "best.yaml"} <= names
    assert (tmp_path / "best.yaml").exists()
