"""`smpo verify`, `smpo rerun`, `smpo doctor RUN`, as a person types them, on real runs of the plane."""

import json
import shutil
from pathlib import Path

import pytest

from smpo.runs.store import RunFolder, find_runs
from tests.cli.words import SMALL_PLANE, smpo

SPEC = SMALL_PLANE.replace("steps: 4, batch: 16, lr: 1e-4", "steps: 12, batch: 16, lr: 1e-4")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with one finished run in it."""
    from smpo.app.plan.plan import make_plan
    from smpo.app.run.run import run
    from smpo.cli.output import resolve_spec

    class Nobody:
        def __getattr__(self, name):
            return lambda *words: None

    place = tmp_path_factory.mktemp("finished")
    (place / "spec.yaml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        resolved = resolve_spec("spec.yaml", [])
        run(resolved, make_plan(resolved), Nobody())
    return place


@pytest.fixture
def here(finished, tmp_path, monkeypatch) -> Path:
    """A copy of it to spoil; the current folder."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def the_run() -> RunFolder:
    return find_runs(Path("runs"))[-1]


def edit(path: Path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_model_that_was_deleted_on_purpose_is_no_fault(here, capfd):
    the_run().drop_model("sweep x, `keep: best`")
    said = smpo(capfd, "verify", "small")
    assert said.code == 0 and "its model was deleted (sweep x, `keep: best`)" in said.out, said.out + said.err
    Path(the_run().path, "resolved.yaml").write_text("changed")
    assert smpo(capfd, "verify", "small", "--files-only").code == 1, "other files are still looked at"


def test_a_finished_run_is_confirmed_bit_for_bit(here, capfd):
    said = smpo(capfd, "verify", "small")
    assert said.code == 0, said.out + said.err
    assert "confirmed, bit for bit" in said.out
    found = json.loads(smpo(capfd, "verify", "small", "--json").out)
    assert found["sound"] and found["exact"] and found["checkpoints"] == 1
    assert {one["judge"] for one in found["judges"]} == {"plane-radius", "plane-on-axis"}
    assert all(one["bitwise"] and one["pictures"] == 32 for one in found["judges"])


def test_a_part_of_the_prompts_is_enough_to_look(here, capfd):
    found = json.loads(smpo(capfd, "verify", "small", "--limit", "8", "--json").out)
    assert found["sound"] and [one["pictures"] for one in found["judges"]] == [8, 8]
    assert all(one["within"] and one["largest"] < 1e-5 for one in found["judges"])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda run: flip(run.model / "model.safetensors"), "model/model.safetensors has changed"),
        (lambda run: (run.model / "config.json").unlink(), "model/config.json is missing"),
        (lambda run: (run.model / "more.safetensors").write_text("x"), "more.safetensors was not written"),
        (lambda run: (run.path / "evaluation.json").write_text("{}"), "evaluation.json has 2 bytes, and had"),
        (lambda run: (run.path / "files.json").write_text("["), "files.json can't be read"),
        (
            lambda run: flip(next(run.checkpoints.glob("*/weights.safetensors"))),
            "checkpoint step-00000012: weights.safetensors has changed",
        ),
    ],
)
def test_what_was_changed_afterwards_is_named(here, capfd, harm, words):
    harm(the_run())
    said = smpo(capfd, "verify", "small")
    assert said.code == 1 and words in said.out, said.out + said.err
    assert "NOT CONFIRMED" in said.out and "not evaluated again" in said.out


def test_a_card_may_be_edited(here, capfd):
    (the_run().model / "README.md").write_text("mine")
    assert smpo(capfd, "verify", "small", "--files-only").code == 0


def test_scores_that_the_model_does_not_get_are_not_confirmed(here, capfd):
    run = the_run()

    def better(evaluation):
        judge = evaluation["judgements"][0]
        judge["policy"] = [[x + 0.5 for x in row] for row in judge["policy"]]

    edit(run.path / "evaluation.json", better)
    (run.path / "files.json").unlink()  # as if whoever did it knew
    said = smpo(capfd, "verify", "small")
    assert said.code == 1 and "lies outside the recorded interval" in said.out
    assert "were not hashed" in said.out


def test_one_changed_score_is_told_though_the_conclusion_holds(here, capfd):
    run = the_run()

    def nudge(evaluation):
        evaluation["judgements"][0]["policy"][3][0] += 1e-6

    edit(run.path / "evaluation.json", nudge)
    (run.path / "files.json").unlink()
    said = smpo(capfd, "verify", "small")
    assert said.code == 1 and "nothing that the lock knows is different here" in said.out
    edit(run.lock_file, lambda lock: lock["packages"].update(torch="1.0"))
    said = smpo(capfd, "verify", "small")
    assert said.code == 0 and "packages.torch: 1.0 →" in said.out, "another torch may round otherwise"
    assert "confirmed within the recorded intervals" in said.out


def test_a_run_that_is_not_finished_cannot_be_verified(here, capfd):
    run = the_run()
    edit(run.path / "status.json", lambda status: status.update(state="failed"))
    said = smpo(capfd, "verify", "small")
    assert said.code == 1 and "is not finished: it is failed" in said.err and "--resume" in said.err


def test_a_rerun_is_the_same_bit_for_bit_and_lies_beside(here, capfd, tmp_path, monkeypatch):
    run = the_run()
    monkeypatch.chdir(tmp_path)
    said = smpo(capfd, "rerun", run.path, "--quiet", "--strict", "--set", "runtime.log_every=1")
    assert said.code == 0, said.out + said.err
    assert "repeated, bit for bit" in said.out and "weights    the same, bit for bit" in said.out
    assert "12 updates" in said.out
    assert [one.attempt for one in find_runs(here / "runs")] == [1, 2]


def test_a_rerun_of_other_data_is_refused_before_it_trains(here, capfd):
    edit(the_run().lock_file, lambda lock: lock["data"].update(digest="0" * 64))
    said = smpo(capfd, "rerun", "small")
    assert said.code == 1 and "would not be the same run: data.digest: 0000" in said.err
    assert not find_runs(Path("runs"))[-1].metrics.exists()
    assert smpo(capfd, "rerun", "small", "--runs", "runs").code == 1, "the refused attempt has no lock"
    first = find_runs(Path("runs"))[0]
    said = smpo(capfd, "rerun", first.path, "--quiet", "--anyway")
    assert said.code == 0 and "different here: data.digest" not in said.out


def test_a_rerun_of_an_unfinished_run_says_how_far_it_can_be_compared(here, capfd):
    run = the_run()
    edit(run.path / "status.json", lambda status: status.update(state="failed"))
    (run.path / "evaluation.json").unlink()
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join(lines[:5]))
    said = smpo(capfd, "rerun", run.path, "--quiet")
    assert said.code == 0 and "5 updates" in said.out
    assert "as far as it goes: the earlier run is failed, so it has no result to compare" in said.out


def test_of_several_attempts_the_latest_finished_one_is_meant(here, capfd):
    shutil.copytree(the_run().path, other := the_run().path.with_name(the_run().id.replace("-1", "-2")))
    edit(other / "status.json", lambda status: status.update(state="failed", started=status["started"] + 9))
    found = json.loads(smpo(capfd, "verify", "small", "--files-only", "--json").out)
    assert found["run"].endswith("-1") and found["sound"]
    assert smpo(capfd, "verify", other).code == 1, "a folder is that folder"


def test_a_rerun_may_change_nothing_but_the_runtime(here, capfd):
    said = smpo(capfd, "rerun", "small", "--set", "train.lr=1")
    assert said.code == 1 and "would be another experiment" in said.err
    (the_run().lock_file).unlink()
    said = smpo(capfd, "rerun", "small")
    assert said.code == 1 and "has no lock.json" in said.err


def test_a_rerun_says_what_is_different_and_goes_on(here, capfd):
    edit(the_run().lock_file, lambda lock: lock["packages"].update(torch="1.0"))
    said = smpo(capfd, "rerun", "small", "--json")
    found = json.loads(said.out)
    assert said.code == 0 and found["exact"] and found["different"][0].startswith("packages.torch: 1.0 → ")


def test_the_lock_names_what_repetition_needs(here):
    lock = json.loads(the_run().lock_file.read_text())
    assert set(lock["data"]) == {"digest", "pairs", "prompts"} and len(lock["labels"]["p"]) == 32
    assert lock["arithmetic"]["threads"] == 1 and lock["arithmetic"]["instructions"]


def test_a_resume_with_other_pairs_is_refused(here, capfd):
    run = the_run()
    edit(run.path / "status.json", lambda status: status.update(state="stopped"))
    edit(run.lock_file, lambda lock: lock["data"].update(digest="0" * 64))
    said = smpo(capfd, "run", "spec.yaml", "--resume", "-q")
    assert said.code == 1 and "would not be the same run" in said.err and "--again" in said.err


def test_a_resume_keeps_the_lock_it_began_with(here, capfd):
    run = the_run()
    edit(run.path / "status.json", lambda status: status.update(state="stopped"))
    edit(run.lock_file, lambda lock: (lock["packages"].update(torch="1.0"), lock.update(created="then")))
    assert smpo(capfd, "run", "spec.yaml", "--resume", "-q").code == 0
    lock = json.loads(run.lock_file.read_text())
    assert lock["created"] == "then" and lock["resumed"][0]["changes"][0].startswith("packages.torch: 1.0")
    assert "it went on with packages.torch" in smpo(capfd, "doctor", "small").out


def test_a_healthy_run_is_healthy(here, capfd):
    said = smpo(capfd, "doctor", "small", "--json")
    found = json.loads(said.out)
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert said.code == 0 and found["state"] != "broken", found
    assert {
        "state",
        "tau_squared",
        "implicit_accuracy",
        "margin",
        "grad_norm",
        "lr",
        "speed",
        "files",
    } <= set(states)
    assert states["tau_squared"] == states["grad_norm"] == states["lr"] == "fine"


def rewrite_metrics(change) -> None:
    path = the_run().metrics
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for number, line in enumerate(lines):
        if "train/loss" in line:
            change(number, line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("harm", "name", "state"),
    [
        (lambda n, line: line.update({"train/tau_squared": 0.3 * 2**n}), "tau_squared", "broken"),
        (lambda n, line: line.update({"train/implicit_accuracy": 0.3}), "implicit_accuracy", "broken"),
        (lambda n, line: line.update({"train/implicit_accuracy": 0.5}), "implicit_accuracy", "warning"),
        (lambda n, line: line.update({"train/grad_norm": 3.0**n}), "grad_norm", "broken"),
        (lambda n, line: line.update({"train/loss": "NaN"}), "train/loss", "broken"),
        (lambda n, line: line.update({"train/pairs_per_second": 100 / (n + 1)}), "speed", "warning"),
        (lambda n, line: line.update({"train/lr": 0.0}), "lr", "broken"),
    ],
)
def test_a_sick_run_is_told(here, capfd, harm, name, state):
    rewrite_metrics(harm)
    said = smpo(capfd, "doctor", "small", "--json")
    states = {check["name"]: check["state"] for check in json.loads(said.out)["checks"]}
    assert states[name] == state and said.code == (1 if state == "broken" else 0)


def test_a_failed_run_says_how_to_go_on(here, capfd):
    run = the_run()
    edit(run.path / "status.json", lambda status: status.update(state="failed", message="RunError: no"))
    (run.path / "autopsy.json").write_text(json.dumps({"message": "update 3 stopped the run"}))
    said = smpo(capfd, "doctor", "small")
    assert said.code == 1 and "--resume" in said.out and "update 3 stopped the run" in said.out


def test_an_empty_run_folder_has_a_doctor_too(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "x" / "abcdef123456-1"
    run.mkdir(parents=True)
    (run / "status.json").write_text("nonsense")
    said = smpo(capfd, "doctor", run)
    assert said.code == 0 and "interrupted, 0 of ? updates" in said.out


def test_judges_are_known_by_what_they_are_and_not_by_their_cards(here):
    """A resolved spec doesn't say through which card a reward came, so it may be called otherwise the next time."""
    from smpo.evaluation.results.agreement import agreements, recorded

    data = json.loads((the_run().path / "evaluation.json").read_text())
    before = recorded(data)
    data["judgements"][0]["name"] = "clip-preference"
    first, second = agreements(before, recorded(data))
    assert (first.judge, second.judge) == ("plane-radius", "plane-on-axis") and first.bitwise and second.bitwise


def test_weights_are_compared_by_their_tensors(here):
    from safetensors.torch import load_file, save_file

    from smpo.app.checks.rerun import _tensors

    weights = the_run().model / "model.safetensors"
    tensors, before = load_file(weights), _tensors(weights)
    save_file(tensors, weights, metadata={"other": "notes"})
    assert _tensors(weights) == before
    tensors[min(tensors)] += 1
    save_file(tensors, weights, metadata={"other": "notes"})
    assert _tensors(weights) != before


@pytest.mark.slow
@pytest.mark.parametrize("lora", [[], ["--set", "model.lora.rank=4"]], ids=["full", "lora"])
def test_a_diffusion_model_is_confirmed_and_repeated_bit_for_bit(lora, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    changes = ("train.steps=3", "train.warmup=1", "train.batch=4", "data.limit=24", "evaluate.limit=8")
    sets = [word for one in (*changes, "runtime.tracking=none") for word in ("--set", one)]
    assert smpo(capfd, "run", "quickstart", "-q", *sets, *lora).code == 0
    said = smpo(capfd, "verify", "quickstart")
    assert said.code == 0 and "confirmed, bit for bit" in said.out and "shapes-reward" in said.out, said.out
    said = smpo(capfd, "rerun", "quickstart", "-q", "--strict")
    assert said.code == 0 and "repeated, bit for bit" in said.out, said.out
