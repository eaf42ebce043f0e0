"""Golden errors of search spaces: `errors/<case>.yaml` is a mistake, `errors/<case>.txt` is what smpo says.

`SMPO_REGENERATE=1 python -m pytest tests/sweep/test_errors.py` writes the texts; read the diff.
"""

import os
from pathlib import Path

import pytest

from smpo.diagnostics.render import render
from smpo.spec.problems import SpecProblems
from smpo.sweep.corners import check_corners
from smpo.sweep.initial_trials import first_values
from smpo.sweep.read_sweep import read_sweep
from tests.sweep.test_space import JUDGES
from tests.sweep.words import resolved

HERE = Path(__file__).parent
CASES = sorted(path.stem for path in (HERE / "errors").glob("[!_]*.yaml"))


@pytest.mark.parametrize("case", CASES)
def test_golden(case, monkeypatch):
    monkeypatch.chdir(HERE)
    file = Path(f"errors/{case}.yaml")
    with pytest.raises(SpecProblems) as caught:
        found = read_sweep(resolved(file), JUDGES)
        check_corners(found.space, lambda settings: resolved(file, settings))
        first_values(found, resolved(file), lambda settings: resolved(file, settings))
    assert caught.value.exit_code == 2
    said = render(caught.value.problems)
    golden = HERE / "errors" / f"{case}.txt"
    if os.environ.get("SMPO_REGENERATE"):
        golden.write_text(said, encoding="utf-8")
    assert said == golden.read_text(encoding="utf-8")
