"""Subprocesses of the tests find what their caller finds: torch may come from `PYTHONPATH`."""

import os
import re

from tests.devices.launching import environment
from tests.paths import ROOT, python_path


def test_the_callers_path_is_kept(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/wheels", "/more"]))
    assert python_path("/first").split(os.pathsep) == ["/first", str(ROOT), "/wheels", "/more"]
    assert environment()["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/wheels", "/more"]
    monkeypatch.delenv("PYTHONPATH")
    assert python_path() == str(ROOT), "an empty entry would be the current folder"


def test_no_other_test_sets_it():
    """But for the scorers' workers, which run in environments of their own."""
    setting = re.compile(r"""["']?PYTHONPATH["']?\s*[:=](?!\s*python_path\()""")
    files = [file for file in ROOT.rglob("tests/**/*.py") if file.name not in ("test_paths.py", "test_process.py")]
    assert [str(file) for file in files if setting.search(file.read_text(encoding="utf-8"))] == []
