"""The ledger: phases add up, passes are those that were made, a resumed run adds to what was there."""

import json
import time

import pytest

from smpo.app.ledger import COST, Ledger
from smpo.components.objectives import DiffusionDPO, SupervisedFineTuning
from smpo.engine.events import StepReport
from smpo.runs.store import open_run


def test_phases_never_overlap():
    ledger = Ledger()
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
    ledger = Ledger()
    ledger.update(StepReport(1, {"passes": 7.0}, 0.1, pairs=16), DiffusionDPO())
    assert ledger.passes == {"invert": 7 * 32, "policy": 32, "reference": 32}
    assert ledger.backwards == 32 and ledger.training_passes == 9 * 32 + 2 * 32 and ledger.pairs == 16
    ledger = Ledger()
    ledger.update(StepReport(1, {"passes": 0.0}, 0.1, pairs=16), SupervisedFineTuning())
    assert ledger.passes["reference"] == 0


def test_a_resumed_run_adds_to_its_ledger(tmp_path):
    def part(resume: bool) -> dict:
        with open_run(tmp_path, "x", "abc123abc123", resume=resume) as folder:
            ledger = Ledger()
            with ledger("train"):
                ledger.update(StepReport(1, {"passes": 0.0}, 0.1, pairs=4), DiffusionDPO())
            found = json.loads(ledger.close(folder).read_text())
            folder.close("stopped")
        return found

    first, both = part(False), part(True)
    assert both["pairs"] == 2 * first["pairs"] == 8 and both["seconds"]["train"] > first["seconds"]["train"]
    assert both["peak_bytes"] > 2**20 and (tmp_path / "x" / "abc123abc123-1" / COST).exists()
