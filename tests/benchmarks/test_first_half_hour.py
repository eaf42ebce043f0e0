"""The first half hour on a card: its parts' commands parse, and an interrupted part leaves the others' results.

Here a stand-in takes the place of the interpreter for the parts' own work; the whole of it is rehearsed under `slow`,
and on a pretended GPU.
"""

import json
import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.benchmarks.conftest import BENCHMARKS

SCRIPT = BENCHMARKS / "first_half_hour.sh"
PARTS = ["doctor", "gpu", "sdxl", "options", "sd15", "memory"]
STAND_IN = """\
#!/usr/bin/env bash
# Parts write a result; sdxl never ends; the card has 150 GB. All else is Python's.
for word in "$@"; do
    if [ "$before" = --out ] || [ "$before" = --results ]; then out="$word"; fi
    before="$word"
done
case "$1 $2" in
    "-m half_hour.parts" | "-m half_hour.page" | "-m pip" | "- ") exec PYTHON "$@" ;;
    "-c "*) echo 150; exit ;;
esac
if [ "$(basename "$out")" = sdxl.json ]; then echo '{"rungs": []}' >"$out"; sleep 60; fi
PYTHON -c 'import importlib.metadata as m, json, sys
found = [one.name for one in m.distributions() if one.name == "in-the-folder"]
json.dump({"cases": {}, "tests": [], "collected": 0, "finished": True, "found": found}, open(sys.argv[1], "w"))' "$out"
"""


def half_hour(*words, out, **more):
    environment = {**os.environ, "OUT": str(out), "PYTHON": sys.executable, **more}
    for name in ("PARTS", "WHEELS", "REHEARSAL", "SDXL", "SD15"):
        if name not in more:
            environment.pop(name, None)
    command = ["bash", str(SCRIPT), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1700, check=False)


@pytest.fixture
def stand_in(tmp_path):
    file = tmp_path / "python"
    file.write_text(STAND_IN.replace("PYTHON", shlex.quote(sys.executable)))
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize("rehearsal", ["", "1"])
def test_every_parts_command_is_understood(script, tmp_path, stand_in, rehearsal):
    said = half_hour("--dry-run", out=tmp_path, PYTHON=stand_in, REHEARSAL=rehearsal)
    assert said.returncode == 0, said.stderr
    lines = [shlex.split(line) for line in said.stdout.splitlines()]
    assert [line[0] for line in lines] == PARTS
    assert rehearsal or sum(int(line[1]) for line in lines) < 30 * 60
    for part, _, *words in lines:
        if words[:2] == ["-m", "pytest"]:
            files = [word for word in words if word.startswith("tests/")]
            assert files and all((BENCHMARKS.parent / file).is_file() for file in files)
            continue
        name, rest = (words[1], words[2:]) if words[0] == "-m" else (Path(words[0]).stem, words[1:])
        understood = script(name).arguments(rest)
        assert understood.out == tmp_path / f"{part}.json"
        assert understood.device == ("cpu" if rehearsal else "cuda")


def test_an_interrupted_part_leaves_what_it_has_and_the_others_run(tmp_path, stand_in):
    out = tmp_path / "found"
    said = half_hour("doctor", "sdxl", "memory", out=out, PYTHON=stand_in, LIMIT_sdxl="1")
    assert said.returncode == 1, said.stderr
    parts = json.loads((out / "parts.json").read_text())
    assert {part: one["ended"] for part, one in parts.items()} == {
        "doctor": "well", "sdxl": "timed out", "memory": "well",
    }  # fmt: skip
    assert json.loads((out / "sdxl.json").read_text()) == {"rungs": []}
    assert (out / "memory.json").is_file()
    assert str(out) not in (out / "parts.json").read_text(), "results are published, folders aren't"


def test_parts_end_when_the_time_for_all_is_spent(tmp_path, stand_in):
    said = half_hour("sdxl", "memory", out=tmp_path / "found", PYTHON=stand_in, TOTAL="2")
    parts = json.loads((tmp_path / "found" / "parts.json").read_text())
    assert [parts[part]["ended"] for part in ("sdxl", "memory")] == ["timed out"] * 2, said.stdout
    assert parts["sdxl"]["limit_seconds"] <= 2 and not parts["memory"]["result"]


def test_pieces_add_up_in_one_folder(tmp_path, stand_in):
    for pieces in ("doctor", "options memory"):
        assert half_hour(out=tmp_path / "found", PYTHON=stand_in, PARTS=pieces).returncode == 0
    assert list(json.loads((tmp_path / "found" / "parts.json").read_text())) == [
        "doctor",
        "options",
        "memory",
    ]


def wheel(folder, name, *, whole=True):
    file = folder / f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
    if not whole:
        return file.write_text("no wheel: pip must not look at it")
    meta = f"{name.replace('-', '_')}-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{meta}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{meta}/RECORD", "")
    return file


def test_wheels_are_installed_from_a_folder_but_for_torch(tmp_path, stand_in):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel(wheels, "in-the-folder")
    wheel(wheels, "torch", whole=False)
    said = half_hour("memory", out=tmp_path / "found", PYTHON=stand_in, WHEELS=str(wheels), SITE=str(tmp_path / "site"))
    assert said.returncode == 0, said.stderr
    assert json.loads((tmp_path / "found" / "memory.json").read_text())["found"] == ["in-the-folder"]


@pytest.mark.parametrize(
    ("words", "more", "told"),
    [
        (["sd21"], {}, "there is no part sd21; there are doctor gpu"),
        (["--all"], {}, "--all is no option"),
        ([], {"WHEELS": "/nowhere"}, "WHEELS=/nowhere is no folder"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(tmp_path, stand_in, words, more, told):
    said = half_hour(*words, out=tmp_path / "found", PYTHON=stand_in, **more)
    assert said.returncode == 2 and told in said.stderr
    assert not (tmp_path / "found" / "parts.json").exists()


TESTS = """\
import json
import pytest

def test_one(request):
    assert 1 == 1

def test_two(request):
    seen = json.loads(request.config.getoption("--results").read_text())
    assert [test["outcome"] for test in seen["tests"]] == ["passed"], "written as soon as it is known"
    assert not seen["finished"]

def test_three():
    assert 1 == 2, "wrong"

def test_four():
    pytest.skip("not here")

@pytest.fixture
def broken():
    raise OSError("no card")

def test_five(broken):
    pass
"""


def test_outcomes_of_tests_are_written_one_by_one(pytester, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    pytester.makepyfile(TESTS)
    pytester.runpytest_inprocess("-p", "half_hour.gpu_tests", "--results", "found.json", "-p", "no:randomly")
    found = json.loads((pytester.path / "found.json").read_text())
    outcomes = [test["outcome"] for test in found["tests"]]
    assert outcomes == ["passed", "passed", "failed", "skipped", "error"] and found["collected"] == 5
    assert "wrong" in found["tests"][2]["message"] and "no card" in found["tests"][4]["message"]
    assert found["finished"] and found["machine"]["torch"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_rehearsal_goes_through(script, tmp_path):
    said = half_hour(out=tmp_path, REHEARSAL="1")
    assert said.returncode == 0, said.stdout + said.stderr
    parts = json.loads((tmp_path / "parts.json").read_text())
    assert list(parts) == PARTS and all(part["ended"] == "well" for part in parts.values())
    assert all((tmp_path / f"{part}.json").is_file() for part in PARTS)
    assert json.loads((tmp_path / "sdxl.json").read_text())["finished"]
    page = script("half_hour.page").section(tmp_path)
    assert "A rehearsal" in page and "### Memory against `smpo plan`" in page and page.strip() in said.stdout


def test_clocks_and_driver_come_from_nvidia_smi(script, tmp_path, monkeypatch):
    """Asked by the card's UUID; numbers become numbers, and a program that fails leaves nothing."""
    import torch

    module, program = script("speed.card"), tmp_path / "nvidia-smi"
    facts = type("Facts", (), {"uuid": "12ab-34"})()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: facts)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    program.write_text('#!/bin/sh\n[ "$2" = GPU-12ab-34 ] || exit 1\necho "1980, 3201, 512.25, [N/A]"\n')
    program.chmod(0o755)
    found = module.clocks(torch.device("cuda"))
    assert found == {
        "sm_clock_mhz": 1980.0, "memory_clock_mhz": 3201.0, "power_w": 512.25, "celsius": "[N/A]",
    }  # fmt: skip
    facts.uuid = "another"
    assert module.clocks(torch.device("cuda")) == {} == module.clocks(torch.device("cpu"))
