"""Code that runs where torch finds a card, or Apple's GPU, executed without one."""

import json
import shutil
import stat
from datetime import timedelta
from types import SimpleNamespace
from unittest.mock import create_autospec

import accelerate
import pytest
import torch
from torch import distributed

from smpo.app.build import device as hardware
from smpo.app.build import inversion_cache as inverted
from smpo.app.build import labels
from smpo.app.build.device import live_runtime
from smpo.app.build.scores import ensure_scores
from smpo.app.checks import machine as checkup
from smpo.app.distributed import liveness as rollcall
from smpo.app.run.cost import CostMeter
from smpo.app.run.lock_file import arithmetic, device_name
from smpo.components.datasets import PlanePairs
from smpo.components.rewards import PlaneRadius
from smpo.errors import MachineError
from smpo.evaluation.results.drift import DriftProbe
from smpo.experiment import ExperimentSpec
from smpo.kinds import Runtime
from smpo.registry.resolve import resolve
from tests.cli.words import SMALL_PLANE, smpo
from tests.cuda import pretend_card, pretend_memory

MPS = torch.backends.mps


@pytest.fixture
def spec(tmp_path):
    def with_settings(*sets):
        (tmp_path / "small.yaml").write_text(SMALL_PLANE)
        return resolve(tmp_path / "small.yaml", skeleton=ExperimentSpec, sets=sets).spec

    return with_settings


def test_the_lock_names_the_card_and_what_computes_on_it(monkeypatch):
    assert device_name("cpu") == "cpu" and arithmetic()["cudnn_benchmark"] is None
    pretend_card(monkeypatch)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert device_name("cuda") == "cuda NVIDIA H200"
    torch.cuda.get_device_name.assert_called_once_with(torch.device("cuda"))
    found = arithmetic()
    assert found["cuda"] == "13.0" and found["cudnn"] == torch.backends.cudnn.version()
    assert found["tf32_convolutions"] is torch.backends.cudnn.allow_tf32
    assert found["cudnn_benchmark"] is torch.backends.cudnn.benchmark


@pytest.mark.parametrize(
    ("card", "apple", "wanted", "found"),
    [
        (True, False, "auto", "cuda"), (False, True, "auto", "mps"), (True, True, "auto", "cuda"),
        (False, False, "auto", "cpu"), (True, True, "cpu", "cpu"), (True, True, "mps", "mps"),
        (False, False, "cuda", None), (True, False, "mps", None),
    ],
)  # fmt: skip
def test_the_device_is_one_that_is_here(monkeypatch, spec, card, apple, wanted, found):
    pretend_card(monkeypatch, is_available=card)
    pretend_memory(monkeypatch)  # the first allocation is a look at the card
    monkeypatch.setattr(MPS, "is_available", lambda: apple)
    if found is None:
        with pytest.raises(MachineError, match=f"asks for {wanted}"):
            live_runtime(spec(f"runtime.device={wanted}"))
    else:
        assert live_runtime(spec(f"runtime.device={wanted}")).device == found


def test_doctor_lists_every_card_with_its_memory(monkeypatch):
    pretend_card(monkeypatch, device_count=2)
    pretend_memory(monkeypatch)
    free = iter([140 * 10**9, 10 * 10**9])
    torch.cuda.mem_get_info.side_effect = lambda card: (next(free), 141 * 10**9)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    one, two, allocator = checkup._torch()
    assert one.state == "fine" and "CUDA 13.0: NVIDIA H200, 140 GB of 141 GB free" in one.message
    assert two.state == "warning" and "another process" in two.help
    assert (allocator.name, allocator.state) == ("allocator", "fine")
    assert [call.args for call in torch.cuda.get_device_properties.call_args_list] == [(0,), (1,)]


@pytest.mark.parametrize(
    ("apple", "build", "tool", "state", "words"),
    [
        (True, None, None, "fine", "Apple's GPU"),
        (False, "13.0", "/usr/bin/nvidia-smi", "warning", "finds no GPU, yet nvidia-smi is here"),
        (False, "13.0", None, "note", "on the CPU"),
        (False, None, "/usr/bin/nvidia-smi", "note", "on the CPU"),
    ],
)
def test_doctor_without_a_card(monkeypatch, apple, build, tool, state, words):
    pretend_card(monkeypatch, is_available=False)
    monkeypatch.setattr(MPS, "is_available", lambda: apple)
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(checkup.shutil, "which", lambda name: tool)
    (found,) = checkup._torch()
    assert found.state == state and words in found.message


@pytest.mark.parametrize(
    ("answer", "code", "state", "words"),
    [("NVIDIA H200, 580.65", 0, "fine", "NVIDIA H200, 580.65"), ("Driver/library mismatch", 18, "warning", "mismatch")],
)  # fmt: skip
def test_doctor_shows_what_the_driver_answers(monkeypatch, tmp_path, answer, code, state, words):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '{answer}'\nexit {code}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert shutil.which("nvidia-smi") == str(tool)
    (found,) = checkup._driver()
    assert found.state == state and words in found.message


def test_a_scorer_gives_the_card_its_memory_back(monkeypatch, tmp_path):
    pretend_card(monkeypatch)
    table = PlanePairs(limit=4).load(Runtime(cache=tmp_path))
    ensure_scores(PlaneRadius(), table, Runtime(device="cpu", cache=tmp_path), None)
    torch.cuda.empty_cache.assert_not_called()
    ensure_scores(PlaneRadius(), table, Runtime(device="cuda", cache=tmp_path), None)
    torch.cuda.empty_cache.assert_called_once_with()
    labels._empty("cuda")
    assert torch.cuda.empty_cache.call_count == 2


def test_what_a_card_inverted_is_not_another_cards(monkeypatch):
    assert inverted._processor("cpu") == torch.backends.cpu.get_cpu_capability()
    pretend_card(monkeypatch)
    assert inverted._processor("cuda") == "NVIDIA H200"


def test_a_process_looks_at_its_card_when_it_has_been_chosen(monkeypatch):
    """accelerate chooses the card by the process's number: an allocation before that would be on the first card."""
    order = []
    chosen = create_autospec(accelerate.Accelerator, return_value=SimpleNamespace(num_processes=1))
    chosen.side_effect = lambda **how: order.append(("chosen", how["cpu"])) or chosen.return_value
    monkeypatch.setattr(accelerate, "Accelerator", chosen)
    monkeypatch.setattr(hardware, "check_allocator", lambda say: order.append("looked"))
    hardware.accelerator_of(Runtime(device="cuda"))
    hardware.accelerator_of(Runtime(device="cpu"))
    assert order == [("chosen", False), "looked", ("chosen", True)]


def test_the_peak_is_the_cards_where_the_run_has_used_it(monkeypatch):
    pretend_card(monkeypatch)
    ledger = CostMeter()
    torch.cuda.reset_peak_memory_stats.assert_called_once_with()
    assert ledger.metrics()["cost/peak_gib"] == 3
    torch.cuda.max_memory_allocated.return_value = 0
    assert 0 < ledger.metrics()["cost/peak_gib"] != 3, "a run on the CPU beside an idle card"


@pytest.mark.parametrize(("cpu", "backend"), [(True, "gloo"), (False, "nccl")])
def test_processes_that_torchrun_started_again_meet_under_names_of_their_own(monkeypatch, cpu, backend):
    from tests.devices.launching import free_port

    place = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    opened = create_autospec(distributed.init_process_group)
    monkeypatch.setattr(distributed, "init_process_group", opened)
    rollcall.init_process_group_after_restart(cpu=cpu, patience=timedelta(seconds=20))
    opened.assert_not_called()  # accelerate does it the first time
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    rollcall.init_process_group_after_restart(cpu=cpu, patience=timedelta(seconds=20))
    ((called,), told) = opened.call_args
    assert (called, told["rank"], told["world_size"]) == (backend, 0, 1)
    told["store"].set("address", "here")
    assert told["store"].underlying_store.get("smpo/2/group/address") == b"here"


def test_an_evaluation_survives_a_card_too_small_for_both_networks(monkeypatch, tmp_path, capfd):
    """The distance that needs the reference beside the policy is left out."""
    plain = DriftProbe.predictions

    def predictions(self, denoiser, *, reference=False, prefix=""):
        if reference:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(self, denoiser, reference=reference, prefix=prefix)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL_PLANE)
    monkeypatch.setattr(DriftProbe, "predictions", predictions)
    assert smpo(capfd, "run", "small.yaml", "-q").code == 0
    (found,) = tmp_path.glob("runs/small/*-1/evaluation.json")
    distances = [one["kind"] for one in json.loads(found.read_text())["drift"]["distances"]]
    assert distances and "error" not in distances
