"""Code that somebody else wrote, in a spec or in a run folder, runs in no command before it is trusted."""

import shutil
import sys
from pathlib import Path

import pytest

from smpo.cli.main import main
from smpo.registry import trust as module
from tests.cli.words import SMALL_PLANE, smpo

CODE = """\
from pathlib import Path
from typing import Literal
from smpo.api import *

Path(MARKER).touch()

@register
class Mine(Smoothing):
    \"\"\"Hard labels.\"\"\"
    use: Literal["mine"] = "mine"
    def __call__(self, winner, loser, share, stats):
        return share
"""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A finished run whose folder brings its code along."""
    folder = tmp_path_factory.mktemp("theirs")
    marker = folder / "ran"
    (folder / "mine.py").write_text(CODE.replace("MARKER", repr(str(marker))))
    (folder / "theirs.yaml").write_text(SMALL_PLANE.replace("name: small", "name: theirs") + "uses: [./mine.py]\n")
    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context() as state:
        patch.chdir(folder)
        state.setenv("XDG_STATE_HOME", str(folder / "state"))
        state.delenv(module.VARIABLE, raising=False)
        patch.setattr(sys, "argv", ["smpo", "run", "theirs.yaml", "--quiet", "--trust-code"])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
        state.setenv(module.VARIABLE, "")
    (run,) = folder.glob("runs/theirs/*-1")
    return folder, run


@pytest.fixture
def here(theirs, tmp_path, monkeypatch):
    """Another person's folder with that run in it; the marker shows whether the code ran."""
    folder, run = theirs
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv(module.VARIABLE, "")
    shutil.copytree(folder / "runs" / "theirs", Path("runs") / "theirs")
    for file in ("theirs.yaml", "mine.py"):
        shutil.copy(folder / file, file)
    (folder / "ran").unlink(missing_ok=True)
    monkeypatch.setattr("smpo.registry.plugins._local", {})
    return folder / "ran", Path("runs") / "theirs" / run.name


COMMANDS = {
    "plan": ["plan", "theirs.yaml"],
    "run": ["run", "theirs.yaml"],
    "check": ["check", "theirs.yaml"],
    "score": ["score", "theirs.yaml"],
    "audit": ["data", "audit", "theirs.yaml"],
    "cache list": ["cache", "list", "theirs.yaml"],
    "diff": ["diff", "theirs.yaml", "RUN"],
    "new": ["new", "mine", "--from", "RUN/resolved.yaml"],
    "resume": ["run", "RUN", "--resume"],
    "verify": ["verify", "RUN"],
    "verify --limit": ["verify", "RUN", "--limit", "2"],
    "rerun": ["rerun", "RUN"],
    "eval": ["eval", "RUN"],
    "compare": ["compare", "RUN", "RUN"],
    "show": ["show", "RUN"],
    "doctor": ["doctor", "RUN"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_it(command, here, capfd):
    marker, run = here
    said = smpo(capfd, *(word.replace("RUN", str(run)) for word in COMMANDS[command]))
    assert not marker.exists(), "the code ran"
    assert "Traceback" not in said.err
    if command not in ("show", "doctor"):  # they read what the run wrote
        assert said.code == 2 and "mine.py` is code that was never trusted here" in said.err, said.err
        assert "--trust-code" in said.err


def test_trust_holds_for_the_content(here, capfd):
    marker, _ = here
    assert smpo(capfd, "check", "theirs.yaml", "--trust-code").code == 0 and marker.exists()
    assert smpo(capfd, "check", "theirs.yaml").code == 0
    Path("mine.py").write_text(Path("mine.py").read_text() + "# changed\n")
    assert smpo(capfd, "check", "theirs.yaml").code == 2


def test_trust_is_kept_for_later_commands(here, capfd, monkeypatch):
    run = here[1]
    assert smpo(capfd, "verify", run, "--limit", "2", "--trust-code").code == 0
    monkeypatch.setenv(module.VARIABLE, "")  # another shell
    assert smpo(capfd, "verify", run, "--limit", "2").code == 0


def test_a_user_without_a_home_folder(here, capfd, monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
    assert module.store() is None
    assert smpo(capfd, "check", "theirs.yaml", "--trust-code").code == 0
