"""`smpo new`, `smpo diff`, `smpo show` and the words that the tab key offers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from smpo.cli import complete
from smpo.cli.output import shipped_specs
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import resolve
from tests.cli.words import SMALL_PLANE, smpo


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("start", sorted(shipped_specs()))
def test_a_new_spec_is_the_old_one_under_another_name(start, here, capfd):
    said = smpo(capfd, "new", "deep/er/mine", "--from", start)
    assert said.code == 0, said.err
    mine = resolve(Path("deep/er/mine.yaml"), skeleton=ExperimentSpec)
    assert mine.identity == resolve(shipped_specs()[start], skeleton=ExperimentSpec).identity
    assert mine.spec.name == "mine"


def test_a_new_spec_says_what_else_could_be_set(capfd):
    smpo(capfd, "new", "mine")
    text = Path("mine.yaml").read_text()
    first = text.splitlines()[0]
    assert (Path() / first.split("$schema=")[1]).resolve().name == "schema.json"
    for expected in ("# train:", "#   ema: null", "# Checkpoints that are kept: the newest ones."):
        assert expected in text
    assert "#   lr:" not in text, "what the spec sets needs no reminder"
    bare = [line.removeprefix("# ").removeprefix("#") for line in text.splitlines() if line.startswith("#   ")]
    assert all(":" in line for line in bare)


def test_new_keeps_what_is_there_and_knows_its_names(capfd):
    Path("mine.yaml").write_text("precious")
    refused = smpo(capfd, "new", "mine")
    assert refused.code == 3 and "already a file" in refused.err and Path("mine.yaml").read_text() == "precious"
    assert smpo(capfd, "new", "mine", "--force").code == 0
    assert "did you mean `quickstart`?" in smpo(capfd, "new", "a", "--from", "quickstrat").err
    assert "can't be the name" in smpo(capfd, "new", "a b").err


def test_new_says_in_json_what_it_wrote(capfd):
    said = json.loads(smpo(capfd, "new", "mine", "--json").out)
    assert said["file"] == "mine.yaml" and said["name"] == "mine" and said["from"].endswith("quickstart.yaml")
    assert said["spec"] == resolve(Path("mine.yaml"), skeleton=ExperimentSpec).identity.spec_hash
    refused = smpo(capfd, "new", "mine", "--json")
    assert refused.code == 3 and "already a file" in json.loads(refused.out)["error"]


@pytest.mark.parametrize(
    "words", [("plan",), ("new", "mine", "--from"), ("diff", "quickstart"), ("check",), ("score",), ("data", "audit")],
    ids=" ".join,
)  # fmt: skip
def test_commands_that_speak_json_complain_in_json(words, capfd, monkeypatch):
    """Even on GitHub, where annotations are wanted too: standard output stays JSON."""
    Path("bad.yaml").write_text(SMALL_PLANE + "trian: {steps: 3}\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    said = smpo(capfd, *words, "bad.yaml", "--json")
    (problem,) = json.loads(said.out)["problems"]
    assert said.code == 2 and problem["label"] == "did you mean `train`?"
    assert (problem["origin"], problem["line"], problem["column"]) == ("bad.yaml", 15, 1)


def test_diff_of_files_and_runs(capfd):
    Path("small.yaml").write_text(SMALL_PLANE)
    Path("other.yaml").write_text("extends: small.yaml\nname: other\ntrain: {steps: 5}\n")
    Path("seed.yaml").write_text("extends: small.yaml\ntrain: {seed: 9}\n")
    said = smpo(capfd, "diff", "small.yaml", "other.yaml")
    assert said.code == 0 and "train.steps" in said.out and "not part of the identity" in said.out
    changes = json.loads(smpo(capfd, "diff", "small.yaml", "other.yaml", "--json").out)["changes"]
    assert changes == [
        {"path": "name", "before": "small", "after": "other", "hashed": False},
        {"path": "train.steps", "before": 4, "after": 5, "hashed": True},
    ]
    assert "the same experiment" in smpo(capfd, "diff", "small.yaml", "small.yaml").out
    assert "seed alone" in smpo(capfd, "diff", "small.yaml", "seed.yaml").out


def test_diff_and_show_know_runs_by_folder_hash_and_name(capfd):
    Path("small.yaml").write_text(SMALL_PLANE)
    assert smpo(capfd, "show").out.strip() == "no runs in runs"
    assert smpo(capfd, "run", "small.yaml", "-q").code == 0
    (run,) = Path("runs/small").glob("*-1")
    for word in (run, run.name, run.name[:8]):
        assert "the same experiment" in smpo(capfd, "diff", "small.yaml", word).out, word
    assert "inversion.steps" in smpo(capfd, "diff", "plane_smpo", run.name).out
    (listed,) = json.loads(smpo(capfd, "show", "--json").out)
    assert (listed["name"], listed["run"], listed["state"], listed["update"]) == (
        "small",
        run.name,
        "done",
        4,
    )
    assert run.name in smpo(capfd, "show").out
    shown = smpo(capfd, "show", "small").out
    assert "win rate" in shown and "plane-radius" in shown and "use: smpo" in shown
    missing = smpo(capfd, "diff", "small.yaml", "no-such-thing")
    assert missing.code == 1 and "no run `no-such-thing`" in missing.err
    assert complete.run_ids(run.name[:4]) == [(run.name, "small")]


def words(choices):
    return [word for word, _ in choices]


def test_the_tab_key_knows_specs_files_and_names(here):
    Path("quiet.yaml").write_text(SMALL_PLANE)
    Path("qfolder").mkdir()
    assert words(complete.specs("qu")) == ["quickstart", "quiet.yaml"]
    assert "qfolder/" in words(complete.specs("q"))
    assert complete.specs("no/such/folder/x") == []
    assert "renoise" in words(complete.names("reno")) and "renoise-sdxl" in words(complete.names("reno"))
    assert words(complete.kinds("obj")) == ["objective"]
    assert complete.run_ids("") == []


class Context:
    """What typer hands over: the words before."""

    def __init__(self, spec=None):
        self.params = {"spec": spec}


def test_the_tab_key_knows_what_can_be_set(here):
    assert {"train.lr=", "train.lr"} & set(words(complete.set_paths(Context(), "train.l")))
    paths = words(complete.set_paths(Context("quickstart"), "inversion."))
    assert "inversion.steps=" in paths and "inversion.by=" in paths
    assert dict(complete.set_paths(Context("quickstart"), "train.steps"))["train.steps="] == "now 60"
    assert "inversion=renoise-sdxl" in words(complete.set_paths(Context(), "inversion=reno"))
    Path("broken.yaml").write_text("name: [\n")
    assert "train.lr=" in words(complete.set_paths(Context("broken.yaml"), "train.l"))


def test_the_tab_key_runs_no_local_code(here):
    Path("evil.py").write_text("raise SystemExit('ran')\n")
    Path("evil.yaml").write_text(SMALL_PLANE + "uses: [./evil.py]\n")
    assert words(complete.set_paths(Context("evil.yaml"), "train.lr")) == ["train.lr="]


def test_completion_answers_the_shell_without_torch(here):
    code = (
        "import os, sys\n"
        "os.environ.update(_SMPO_COMPLETE='complete_bash', COMP_WORDS='smpo plan quickstart --set objective=sm',"
        " COMP_CWORD='4')\n"
        "sys.argv = ['smpo']\n"
        "from smpo.cli.main import app\n"
        "try: app(prog_name='smpo')\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "objective=smpo" in done.stdout.split() and done.stdout.split()[-1] == "False", done.stderr
