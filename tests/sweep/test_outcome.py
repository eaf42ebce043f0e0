"""`keep: best` deletes the weights that a sweep made itself, and says so in the run's folder."""

from smpo.app.sweep.outcome import _drop_models
from smpo.runs.folder import RunFolder
from tests.sweep.test_study import study_of


def test_the_model_of_a_run_that_was_only_reused_stays(tmp_path):
    study, _ = study_of(tmp_path)
    for number, (outcome, value) in enumerate([("reused", 0.0), ("done", 1.0), ("done", 2.0)]):
        model = tmp_path / "runs" / "t" / f"run-{number}" / "model"
        model.mkdir(parents=True)
        (model / "weights").touch()
        trial, _ = study.take(9)
        trial.set_user_attr("run", f"t/run-{number}")
        study.end(trial, "done", outcome, values=[value])
    _drop_models(study, tmp_path / "runs")
    there = [(tmp_path / "runs" / "t" / f"run-{number}" / "model").exists() for number in range(3)]
    assert there == [True, False, True]
    reasons = [RunFolder(tmp_path / "runs" / "t" / f"run-{number}").dropped for number in range(3)]
    assert reasons == ["", f"sweep {study.id}, `keep: best`", ""]
