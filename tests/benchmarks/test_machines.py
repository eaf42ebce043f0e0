"""The numerical tests under several instruction sets: which run, how they are counted, and a green last run."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def machines():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE / "benchmarks"))
        yield importlib.import_module("machines")


def test_the_committed_run_is_whole_and_green(machines: ModuleType) -> None:
    told = json.loads(machines.RESULT.read_text())
    ran = {row["setting"] for row in told["settings"] if row["ran"]}
    assert [row["setting"] for row in told["settings"]] == [one.name for one in machines.SETTINGS]
    assert told["tests"] == list(machines.TESTS)
    assert not [name for row in told["settings"] for name in row.get("failed", [])]
    assert {"as it is", "two threads", "imaginary"} <= ran


def test_every_path_is_there(machines: ModuleType) -> None:
    paths = [path.split("::")[0] for path in (*machines.TESTS, *machines.APART)]
    assert [path for path in paths if not (HERE / path).exists()] == []


def test_a_failing_test_and_an_idle_setting_are_seen(
    machines: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`OMP_NUM_THREADS` is a setting of its own; a variable that no library reads changes no sum."""
    (tmp_path / "test_some.py").write_text(
        "import os, pytest\n"
        "def test_one(): assert os.environ['OMP_NUM_THREADS'] == '1'\n"
        "def test_two(): assert os.environ['OMP_NUM_THREADS'] == '2'\n"
        "def test_three(): pytest.skip('no')\n"
    )
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")  # a shell's own setting doesn't count
    idle = machines.Setting("idle", {"MKL_NOBODY_READS": "1"})
    plain, two, none = machines.rows([*machines.SETTINGS[:2], idle], [str(tmp_path)], tmp_path)
    assert (plain["passed"], plain["skipped"], plain["ran"]) == (1, 1, True)
    assert [name.split("::")[1] for name in plain["failed"] + two["failed"]] == ["test_two", "test_one"]
    assert not none["ran"] and "failed" not in none and "no sum changes" in machines.line(none)
    assert "1 failed" in machines.line(plain) and "::test_two" in machines.line(plain)
