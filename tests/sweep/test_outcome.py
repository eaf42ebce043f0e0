"""`keep: best` deletes the weights that a sweep made itself, and says so in the run's folder."""

import json

from smpo.app.sweep.outcome import _drop_models
from smpo.runs.folder import RunFolder
from tests.sweep.test_study import study_of


def test_only_models_of_runs_that_the_study_began_are_deleted(tmp_path):
    """The first was there before, and the second a person's run that a trial continued."""
    study, _ = study_of(tmp_path)
    mine = {"smpo.study": study.id}
    runs = [("reused", {}, 0.0), ("done", {"team": "x"}, 0.1), ("done", mine, 1.0), ("done", mine, 2.0)]
    for number, (outcome, tags, value) in enumerate(runs):
        model = tmp_path / "runs" / "t" / f"run-{number}" / "model"
        model.mkdir(parents=True)
        (model / "weights").touch()
        start = json.dumps({"event": "start", "tags": tags})
        (model.parent / "events.jsonl").write_text(f"{start}\n")
        trial, _ = study.take(9)
        trial.set_user_attr("run", f"t/run-{number}")
        study.end(trial, "done", outcome, values=[value])
    _drop_models(study, tmp_path / "runs")
    there = [(tmp_path / "runs" / "t" / f"run-{number}" / "model").exists() for number in range(4)]
    assert there == [True, True, False, True]
    reasons = [RunFolder(tmp_path / "runs" / "t" / f"run-{number}").dropped for number in range(4)]
    assert reasons == ["", "", f"sweep {study.id}, `keep: best`", ""]
