"""Checkpoints: whole or not at all, and the one before when the newest is torn; killed at any system call."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from smpo.atomic import atomic_folder, fsync
from smpo.engine.checkpoints.checkpoint import restore
from smpo.engine.checkpoints.files import checkpoints, manifest_fault
from smpo.engine.checkpoints.train_state import TrainState
from smpo.errors import RunError
from tests.engine.states import FILES, live, save, weight, write


def test_round_trip_is_exact(tmp_path):
    one, other = write(tmp_path, 7), live(0.0)
    assert restore(tmp_path, other, spec_hash="abc", say=pytest.fail).step == 7
    assert torch.equal(weight(one), weight(other))
    for a, b in zip(*(s.optimiser.state_dict()["state"].values() for s in (one, other)), strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert torch.equal(one.average.shadow["weight"], other.average.shadow["weight"])
    assert other.scaler.get_scale() == one.scaler.get_scale() == 58


def test_what_is_restored_does_not_reach_back_into_the_file(tmp_path):
    write(tmp_path, 7)
    state = live(0.0)
    restore(tmp_path, state, say=pytest.fail)
    for values in state.optimiser.state_dict()["state"].values():
        values["exp_avg"].add_(1)
    weight(state).data.add_(1)
    assert manifest_fault(tmp_path / "step-00000007") is None


def test_one_whose_manifest_was_deleted_is_passed_over_in_words(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, step)
    for step in (1, 3):  # the first as by smpo, which was killed while it dropped it
        (tmp_path / f"step-{step:08d}" / "manifest.json").unlink()
    said = []
    assert restore(tmp_path, live(0.0), spec_hash="abc", say=said.append).step == 2
    assert said == ["checkpoint step-00000003 can't be used (manifest.json is missing)"]


def test_facts_come_back(tmp_path):
    save(tmp_path, 3, live(1.0), spec_hash="abc", keep=1, facts={"log": 120})
    assert restore(tmp_path, live(0.0), say=pytest.fail) == (3, {"log": 120})


def test_an_optimiser_may_nest_its_state(tmp_path):
    class Nested(torch.optim.SGD):
        """As 8-bit optimisers do: quantised moments with their tables, and plain numbers."""

    state = live(1.0, Nested)
    first = next(iter(weight(state) for _ in "1"))
    state.optimiser.state[first] = {
        "quant": {"codes": torch.arange(4, dtype=torch.uint8), "tables": [torch.ones(2), 3]}, "RMS": 0.1
    }  # fmt: skip
    save(tmp_path, 1, state, spec_hash="abc", keep=1)
    other = live(0.0, Nested)
    restore(tmp_path, other, say=pytest.fail)
    found = other.optimiser.state_dict()["state"][0]
    assert torch.equal(found["quant"]["codes"], torch.arange(4, dtype=torch.uint8))
    assert torch.equal(found["quant"]["tables"][0], torch.ones(2)) and found["quant"]["tables"][1] == 3
    assert found["RMS"] == 0.1


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 3, 4):
        write(tmp_path, step, keep=2)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000003", "step-00000004"]
    assert len(list(tmp_path.iterdir())) == 2, "and nothing else"


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("harm", ["truncate", "flip", "empty", "lose"])
def test_a_harmed_checkpoint_is_passed_over_in_words(tmp_path, harm, file):
    before = write(tmp_path, 1)
    write(tmp_path, 2)
    path = tmp_path / "step-00000002" / file
    data = path.read_bytes()
    if harm == "truncate":
        path.write_bytes(data[:-5])
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "lose":
        path.unlink()
    said: list[str] = []
    if harm != "flip":
        state = live(0.0)
        assert restore(tmp_path, state, say=said.append).step == 1
        assert torch.equal(weight(state), weight(before))
        unmarked = (harm, file) == (
            "lose",
            "manifest.json",
        )  # it has no mark of completion: nobody called it one
        assert unmarked or ("step-00000002 can't be used" in said[0] and "the one before" in said[0])
        return
    # Every bit of small files, and of large ones every fourth byte's, in turn.
    for place in range(0, len(data), 1 if len(data) < 400 else 4):
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
        assert manifest_fault(path.parent) is not None, place
    assert restore(tmp_path, live(0.0), say=said.append).step == 1


def test_when_none_is_whole_the_run_begins_again_in_words(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "step-00000001/weights.safetensors").write_bytes(b"")
    said: list[str] = []
    assert restore(tmp_path, live(0.0), say=said.append) == (0, {})
    assert "the run begins again" in said[0]


def test_a_checkpoint_of_another_experiment_is_not_taken(tmp_path):
    write(tmp_path, 1)
    said: list[str] = []
    assert restore(tmp_path, live(0.0), spec_hash="xyz", say=said.append).step == 0
    assert "belongs to another experiment, abc" in said[0]


def test_a_checkpoint_that_does_not_fit_says_so(tmp_path):
    write(tmp_path, 1)
    other = nn.Linear(3, 3)
    with pytest.raises(RunError, match="is whole, but doesn't fit") as caught:
        restore(tmp_path, TrainState(dict(other.named_parameters())), say=pytest.fail)
    assert "--again" in str(caught.value.help)


def test_nothing_there_is_a_fresh_start(tmp_path):
    assert restore(tmp_path / "none", live(0.0), say=pytest.fail) == (0, {})


def test_a_torn_one_of_the_same_step_is_replaced_and_a_whole_one_stays(tmp_path):
    write(tmp_path, 1)
    weights = tmp_path / "step-00000001/weights.safetensors"
    whole = weights.stat().st_mtime_ns
    write(tmp_path, 1)
    assert weights.stat().st_mtime_ns == whole
    weights.write_bytes(b"torn")
    write(tmp_path, 1)
    assert manifest_fault(tmp_path / "step-00000001") is None and len(list(tmp_path.iterdir())) == 1


def test_drafts_of_dead_processes_are_swept_and_those_of_living_ones_left(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (
        f".writing-{dead.pid}",
        f".writing-{os.getppid()}",
        ".writing-junk",
        ".replaced-step-00000001",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.safetensors").write_text("half")
    restore(tmp_path, live(0.0), say=pytest.fail)
    assert [path.name for path in tmp_path.iterdir()] == [f".writing-{os.getppid()}"]


def test_a_process_that_writes_no_checkpoints_deletes_no_draft(tmp_path):
    """It may be a living process's, on another machine."""
    write(tmp_path, 3)
    (tmp_path / ".writing-junk").mkdir()
    assert restore(tmp_path, live(0.0), say=pytest.fail, writes=False).step == 3
    assert (tmp_path / ".writing-junk").is_dir()
    restore(tmp_path, live(0.0), say=pytest.fail)
    assert not (tmp_path / ".writing-junk").exists()


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """The order of system calls, since a power cut can't be had here: contents, names, then the rename."""
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def flushed(number):
        calls.append(f"flush {str(Path(f'/proc/self/fd/{number}').readlink()).removeprefix(str(tmp_path))}")
        fsync(number)

    def renamed(path, target):
        calls.append(f"rename {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    write(tmp_path, 1)
    draft = f"/.writing-{os.getpid()}"
    at = calls.index("rename step-00000001")
    assert set(calls[:at]) == {f"flush {draft}", *(f"flush {draft}/{name}" for name in FILES)}
    assert calls[at - 1] == f"flush {draft}" and calls[at + 1 :] == ["flush "]


KILLED = """
import os, signal, sys
from pathlib import Path
import tests.engine.states as here
from smpo.engine.checkpoints import checkpoint

def counted(call, after, calls):
    def wrapped(*args, **named):
        calls.append(call.__name__)
        if len(calls) == after:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **named)
    return wrapped

def child(folder, after):
    here.write(folder, 1, keep=1)
    calls = []
    for place, name in ((Path, "mkdir"), (Path, "replace"), (Path, "unlink"), (Path, "write_text"), (os, "fsync"),
                        (os, "unlink"), (os, "rmdir"), (checkpoint, "save_file"), (checkpoint, "digest")):
        setattr(place, name, counted(getattr(place, name), after, calls))
    here.write(folder, 2, keep=1)

here.write(Path(sys.argv[1]) / "0", 1)  # what torch imports on its first use is imported once
for after in range(1, 200):
    pid = os.fork()
    if not pid:
        child(Path(sys.argv[1]) / str(after), after)
        os._exit(0)
    if os.WIFEXITED(os.waitpid(pid, 0)[1]):
        break
"""


def test_killed_at_any_system_call_one_checkpoint_stands(tmp_path):
    """With `keep=1` there is no other one to fall back on: the old is deleted only when the new one stands."""
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=True)
    folders = sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))[1:]
    assert len(folders) > 30
    found = []
    for folder in folders:
        state = live(0.0)
        found.append(restore(folder, state, say=lambda text: None).step)
        assert torch.equal(weight(state), weight(live(float(found[-1]))))
        assert not list(folder.glob(".*")), "and the litter is swept"
        write(folder, 3, keep=1)
        assert [path.name for path in folder.iterdir()] == ["step-00000003"], "nor is anything left half deleted"
    assert found == sorted(found) and set(found) == {1, 2}, "never none, and never back"


def test_a_draft_that_fails_is_gone_and_the_target_untouched(tmp_path):
    target = tmp_path / "thing"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_folder(target) as draft:
        (draft / "new").write_text("half")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.rglob("*")] == ["thing", "old"]


def test_a_folder_that_can_not_be_flushed_is_no_reason_to_fail(tmp_path, monkeypatch):
    def refuse(number):
        raise OSError(errno.EINVAL, "not here")

    monkeypatch.setattr(os, "fsync", refuse)
    fsync(tmp_path)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(OSError, match="not here"):
        fsync(file)


def test_manifests_are_json_with_a_seal(tmp_path):
    write(tmp_path, 1)
    facts = json.loads((tmp_path / "step-00000001/manifest.json").read_text())
    assert set(facts) == {"step", "spec", "files", "facts", "sha256"} and set(facts["files"]) == set(FILES[:-1])
