"""With `runtime.tracking: none` a run needs neither mlflow nor optuna: in an environment without them."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.cli.words import SMALL_PLANE
from tests.paths import ROOT

MISSING = ("mlflow", "optuna")
SWEEP = "sweep: {maximise: eval/plane-radius/gain, search: {objective.beta: {log: [100, 5000]}}}\n"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A virtual environment with links to every installed package except the missing ones, and to their metadata."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for site in {path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")}:
        for entry in Path(site).iterdir():
            link = packages / entry.name
            if not entry.name.startswith(MISSING) and entry.suffix != ".pth" and not link.exists():
                link.symlink_to(entry)
    (packages / "smpo.pth").write_text(str(ROOT))
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def smpo(python, tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    (folder / "small.yaml").write_text(SMALL_PLANE)
    (folder / "sweep.yaml").write_text(SMALL_PLANE + SWEEP)
    (folder / "runs").mkdir()
    (folder / "runs" / "mlflow.db").touch()
    return lambda *words: called(python, "-m", "smpo", *words, folder=folder)


def called(*words, folder):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment, check=False, timeout=200)


@pytest.mark.parametrize("package", MISSING)
def test_the_environment_lacks_them(package, python, tmp_path):
    done = called(python, "-c", f"import {package}", folder=tmp_path)
    assert f"No module named '{package}'" in done.stderr


def test_a_run_its_verification_and_its_comparison(smpo):
    for words in (
        ["run", "small.yaml"],
        ["verify", "small"],
        ["eval", "small", "--json"],
        ["run", "small.yaml", "--set=objective=dpo", "--quiet"],
        ["compare", "small", "small"],
    ):
        done = smpo(*words)
        assert done.returncode == 0, f"{words}: {done.stderr}"


@pytest.mark.parametrize(
    ("words", "package"),
    [
        (["run", "small.yaml", "--set=runtime.tracking=null", "--set=train.steps=7"], "mlflow"),
        (["ui"], "mlflow"),
        (["sweep", "sweep.yaml", "--trials", "2"], "optuna"),
    ],
)
def test_what_needs_one_of_them_names_it(smpo, words, package):
    done = smpo(*words)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert f"pip install {package}" in done.stderr, done.stderr
