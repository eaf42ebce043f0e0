"""The ledger: phases add up, passes are those that were made, a resumed run adds to what was there."""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from smpo.app.run.cost import COST, CostMeter
from smpo.app.run.energy import EnergyMeter
from smpo.components.objectives import DiffusionDPO, SupervisedFineTuning
from smpo.engine.monitoring.tracker import StepReport
from smpo.runs.store import open_run
from tests.cli.words import SMALL_PLANE, smpo
from tests.cuda import pretend_card


def test_phases_never_overlap():
    ledger = CostMeter()
    began = time.perf_counter()
    with ledger("train"):
        time.sleep(0.02)
        for _ in range(2):
            with ledger("invert"):
                time.sleep(0.02)
    whole = time.perf_counter() - began
    assert ledger.seconds["invert"] >= 0.04 and ledger.seconds["train"] >= 0.02
    assert sum(ledger.seconds.values()) == pytest.approx(whole, abs=0.01)


def test_passes_follow_from_what_was_reported():
    ledger = CostMeter()
    ledger.update(StepReport(1, {"passes": 7.0}, 0.1, pairs=16), DiffusionDPO())
    assert ledger.passes == {"invert": 7 * 32, "policy": 32, "reference": 32}
    assert ledger.backwards == 32 and ledger.training_passes == 9 * 32 + 2 * 32 and ledger.pairs == 16
    ledger = CostMeter()
    ledger.update(StepReport(1, {"passes": 0.0}, 0.1, pairs=16), SupervisedFineTuning())
    assert ledger.passes["reference"] == 0


def test_a_resumed_run_adds_to_its_ledger(tmp_path):
    def part(resume: bool) -> dict:
        with open_run(tmp_path, "x", "abc123abc123", resume=resume) as folder:
            ledger = CostMeter()
            with ledger("train"):
                ledger.update(StepReport(1, {"passes": 0.0}, 0.1, pairs=4), DiffusionDPO())
            found = json.loads(ledger.close(folder).read_text())
            folder.close("stopped")
        return found

    first, both = part(False), part(True)
    assert both["pairs"] == 2 * first["pairs"] == 8 and both["seconds"]["train"] > first["seconds"]["train"]
    assert both["peak_bytes"] > 2**20 and (tmp_path / "x" / "abc123abc123-1" / COST).exists()


def test_what_a_checkpoint_knows_is_gone_on_from_and_the_rest_forgotten(tmp_path):
    with open_run(tmp_path, "x", "abc123abc123") as folder:
        ledger = CostMeter()
        with ledger("train"):
            ledger.update(StepReport(1, {"passes": 0.0}, 0.1, pairs=4), DiffusionDPO())
            with ledger("invert"):
                time.sleep(0.01)
                kept = ledger.state_dict()
            ledger.update(StepReport(2, {"passes": 0.0}, 0.1, pairs=4), DiffusionDPO())
        whole = json.loads(ledger.close(folder).read_text())
        folder.close("stopped")
    assert 0.01 <= kept["cost"]["seconds"]["invert"] <= whole["seconds"]["invert"]
    assert 0 < kept["cost"]["seconds"]["train"] <= whole["seconds"]["train"] < 0.01, "time within is not counted twice"
    with open_run(tmp_path, "x", "abc123abc123", resume=True) as folder:
        again = CostMeter()
        again.load(folder, kept)
        with again("train"):
            again.update(StepReport(2, {"passes": 0.0}, 0.1, pairs=4), DiffusionDPO())
        both = json.loads(again.close(folder).read_text())
    assert both["passes"] == whole["passes"] and both["backwards"] == whole["backwards"] and both["pairs"] == 8


@pytest.fixture
def powercap(tmp_path):
    """A machine with two packages, one of which has parts."""
    for zone, name in (
        ("intel-rapl:0", "package-0"),
        ("intel-rapl:1", "package-1"),
        ("intel-rapl:0:0", "core"),
    ):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(name + "\n")
        (tmp_path / zone / "energy_uj").write_text("90000000\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("100000000\n")
    return tmp_path


def test_energy_is_what_the_packages_counters_rose_by(powercap):
    meter = EnergyMeter(powercap)
    (powercap / "intel-rapl:0" / "energy_uj").write_text("95000000\n")
    meter.tick()
    assert meter.joules == {"cpu": pytest.approx(5)}
    (powercap / "intel-rapl:1" / "energy_uj").write_text("3000000\n")  # past its range, from the start again
    (powercap / "intel-rapl:0:0" / "energy_uj").write_text("99000000\n")  # is in its package already
    meter.tick()
    assert meter.joules == {"cpu": pytest.approx(5 + 13)}
    (powercap / "intel-rapl:0" / "energy_uj").unlink()
    meter.tick()
    assert meter.joules == {"cpu": pytest.approx(18)}


def test_where_nothing_is_told_nothing_is_reported(tmp_path):
    ledger = CostMeter()
    ledger.energy = EnergyMeter(tmp_path)
    assert not any("energy" in name for name in ledger.metrics()) and len(ledger.lines()) == 3
    ledger.energy.joules["gpu"] = 12_340.0
    assert ledger.metrics()["cost/energy_kj_gpu"] == pytest.approx(12.34) and "gpu 12.3 kJ" in ledger.lines()[-1]


def test_a_gpus_counter_is_read_where_there_is_one(monkeypatch, tmp_path):
    counter = iter([1_000, 251_000])
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: {"GPU-cafe": "handle"}[name],
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(counter),  # in thousandths
        NVMLError=RuntimeError,
    )
    pretend_card(monkeypatch)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meter = EnergyMeter(tmp_path)
    meter.tick()
    assert meter.joules == {"gpu": pytest.approx(250)}
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert EnergyMeter(tmp_path).joules == {}, "nvidia-ml-py isn't installed"


def test_scoring_and_encoding_have_their_own_seconds(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL_PLANE)
    assert smpo(capfd, "run", "small.yaml", "-q").code == 0
    (cost,) = tmp_path.glob("runs/small/*-1/cost.json")
    seconds = json.loads(cost.read_text())["seconds"]
    assert {"prepare", "score", "encode", "invert", "train", "sample", "evaluate", "save"} <= set(seconds)


def test_inversions_on_a_gpu_are_timed_by_its_own_clock(monkeypatch):
    """Nobody waits for the device inside an update: events are recorded, and read when the update is over."""
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("record")

        def elapsed_time(self, other):
            assert other is not self
            log.append("read")
            return 250.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: log.append("wait"))
    ledger = CostMeter()
    with ledger("train"):
        with ledger._inverting("cuda"):
            log.append("invert")
        assert log == ["record", "invert", "record"] and "invert" not in ledger.seconds
        ledger.update(StepReport(1, {"passes": 7.0}, 1.0, 16), DiffusionDPO())
        time.sleep(0.3)
    assert log[3:] == ["read"] and ledger.seconds["invert"] == 0.25
    assert ledger.seconds["train"] == pytest.approx(0.05, abs=0.04), "what the inversion took isn't training's"
