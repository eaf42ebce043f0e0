"""What third parties copy from: the plug-in installed as a package, and a file beside a spec."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.words import smpo
from tests.paths import python_path

EXAMPLES = Path(__file__).parents[2] / "examples"
PLUGIN = EXAMPLES / "smpo-warmth"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which pip has installed the plug-in; this environment stays as it is."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    words = [*pip, "--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder), str(PLUGIN)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def outside(installed, tmp_path):
    """Runs Python somewhere else, with the plug-in installed."""

    def call(*words):
        env = {**os.environ, "PYTHONPATH": python_path(installed)}
        return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, env=env, cwd=tmp_path)

    return call


def test_the_plug_in_appears_in_the_registry(outside):
    done = outside("-m", "smpo.cli.main", "registry", "list", "--json")
    assert done.returncode == 0, done.stderr
    rows = {(row["kind"], row["name"]): row["is"] for row in json.loads(done.stdout)}
    assert rows["reward", "warmth"] == "component"
    assert rows["reward", "warmth-strong"] == "card of warmth"
    assert rows["smoothing", "dead-zone-wide"] == "card of dead-zone"
    assert rows["objective", "focal-dpo-mild"] == "card of focal-dpo"
    assert rows["objective", "smpo"] == "component", "and smpo's own are still there"


def test_its_cards_and_its_spec_are_sound(outside):
    assert outside("-m", "smpo.cli.main", "registry", "check").returncode == 0
    done = outside("-m", "smpo.cli.main", "check", PLUGIN / "warm.yaml")
    assert done.returncode == 0, done.stderr
    done = outside("-m", "smpo.cli.main", "registry", "show", "focal-dpo", "--json")
    (found,) = json.loads(done.stdout)
    assert {field["name"] for field in found["fields"]} == {"beta", "focus"}
    assert "log sigmoid" in found["text"]


def test_what_is_shipped_does_not_depend_on_it(outside):
    done = outside("-m", "smpo.cli.main", "schema", "--shipped")
    assert "focal-dpo" not in done.stdout and '"smpo"' in done.stdout
    assert "focal-dpo" in outside("-m", "smpo.cli.main", "schema").stdout


def test_it_keeps_the_contracts(outside):
    done = outside("-m", "pytest", "-q", "-p", "no:cacheprovider", PLUGIN / "tests")
    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout and "passed" in done.stdout


def test_without_the_plug_in_the_spec_says_what_is_missing(capfd):
    said = smpo(capfd, "check", PLUGIN / "warm.yaml")
    assert said.code == 2 and "no reward is called `warmth-strong`" in said.err


def test_the_local_reward_runs(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    spec = EXAMPLES / "local_reward" / "upwards.yaml"
    refused = smpo(capfd, "plan", spec)
    assert refused.code == 2 and "my_reward.py` is code that was never trusted here" in refused.err
    planned = smpo(capfd, "plan", spec, "--trust-code")
    assert planned.code == 0 and "runs code" in planned.out and "my_reward.py" in planned.out
    small = [
        "-s",
        "train.steps=3",
        "-s",
        "evaluate.limit=40",
        "-s",
        "data.limit=300",
        "-s",
        "runtime.tracking=none",
    ]
    assert smpo(capfd, "run", spec, "-q", *small).code == 0
    (run,) = Path("runs/upwards").glob("*-1")
    assert (run / "evaluation.json").exists() and "upwards" in (run / "resolved.yaml").read_text()
