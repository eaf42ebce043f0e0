"""The table of operators counts what both networks run, and says where they part."""

import importlib
from pathlib import Path

import pytest

from smpo.families import speed
from tests.families.operators import SMALL


@pytest.fixture
def operators(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("operators")


def test_equal_operators_are_counted(operators):
    row = operators.compared(SMALL["sdxl"], "cpu", "bf16", None)
    assert row["equal"] and row["policy"] == row["reference"] > 100 and row["first_difference"] is None


def test_a_difference_is_in_its_row(operators, monkeypatch):
    monkeypatch.setattr(speed, "contiguous_projections", lambda network: None)
    row = operators.compared(SMALL["sdxl"], "cpu", "fp32", None)
    assert not row["equal"] and row["first_difference"][1].startswith("bmm(")
