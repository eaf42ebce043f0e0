"""Which GPU a trial gets, decided by what the environment says, with none in this machine."""

import pytest

from smpo.app.sweep.workers import devices
from smpo.app.sweep.workers.devices import environment, may_fork, visible_gpus
from smpo.app.sweep.workers.process import Launcher
from tests.sweep.words import resolved, small, write


def spec_on(tmp_path, device="auto"):
    spec = resolved(write(tmp_path)).spec
    return spec.model_copy(update={"runtime": spec.runtime.model_copy(update={"device": device})})


@pytest.mark.parametrize(
    ("visible", "found"),
    [("0,2,5", ["0", "2", "5"]), ("GPU-8f3a,MIG-77b1", ["GPU-8f3a", "MIG-77b1"]), ("", []), ("3", ["3"])],
)
def test_what_may_be_seen_is_dealt_out_by_name(tmp_path, monkeypatch, visible, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus(spec_on(tmp_path)) == found
    assert visible_gpus(spec_on(tmp_path, "cpu")) == []


def test_without_a_word_all_devices_of_the_machine_are_dealt_out(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    machine = tmp_path / "dev"
    machine.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (machine / name).touch()
    monkeypatch.setattr(devices, "_DEVICES", machine)
    assert visible_gpus(spec_on(tmp_path)) == ["0", "1", "2", "10"]
    assert not may_fork(spec_on(tmp_path)), "a CUDA context can't be shared by forking"


def test_each_slot_has_a_device_of_its_own_and_a_free_one_is_used_again(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    prepared, said = small(tmp_path, jobs=3), []
    given = []
    launcher = Launcher(prepared, lambda order, log, env: given.append(env), said.append)
    taken: set[int] = set()

    def begin(name):
        job = launcher.job(name, {}, prepared.resolved, {}, parent=None, taken=taken)
        taken.add(job.slot)
        launcher.start(job)
        return job

    first, second = begin("a"), begin("b")
    assert [env["CUDA_VISIBLE_DEVICES"] for env in given] == ["4", "6"]
    taken.discard(first.slot)
    begin("c")
    assert given[-1]["CUDA_VISIBLE_DEVICES"] == "4", "the device of the trial that ended"
    assert second.slot == 1
    assert said == ["3 trials at once share 2 GPUs, and their memory"]


def test_on_a_cpu_a_trial_is_told_its_threads_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert environment(spec_on(tmp_path, "cpu"), [], 0) == {"OMP_NUM_THREADS": "1"}
