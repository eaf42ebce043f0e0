"""Expandable segments are chosen where nothing else was, and given up where the driver has none."""

import os

import pytest
import torch

from smpo.app.build.allocator import (
    ALLOCATOR,
    allocator_settings,
    check_allocator,
    prefer_expandable_segments,
)


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in ALLOCATOR:
        monkeypatch.setenv(name, "")  # put back afterwards, whatever the code does
        monkeypatch.delenv(name)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr("sys.platform", "linux")


def test_nothing_said_is_expandable_segments():
    prefer_expandable_segments()
    assert allocator_settings() == os.environ["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"


@pytest.mark.parametrize("name", ALLOCATOR)
def test_what_the_environment_says_stays(monkeypatch, name):
    monkeypatch.setenv(name, "max_split_size_mb:128")
    prefer_expandable_segments()
    assert {name: os.environ.get(name) for name in ALLOCATOR} == {
        **dict.fromkeys(ALLOCATOR),
        name: "max_split_size_mb:128",
    }


@pytest.mark.parametrize(
    ("what", "value"),
    [("sys.platform", "win32"), ("torch.version.cuda", None), ("torch.cuda.is_initialized", lambda: True)],
)
def test_where_they_are_not_to_be_had_nothing_is_set(monkeypatch, what, value):
    monkeypatch.setattr(what, value)
    prefer_expandable_segments()
    assert allocator_settings() is None


def refusing(monkeypatch, error, *, times=1):
    """`torch.empty` on a GPU whose driver refuses; returns the settings that torch was given."""
    given, left = [], [error] * times

    def empty(*_, device):
        assert device == "cuda"
        if left:
            raise left.pop()

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", given.append, raising=False)
    return given


def test_a_driver_without_them_gets_fixed_segments(monkeypatch):
    prefer_expandable_segments()
    given, said = (
        refusing(monkeypatch, RuntimeError("CUDA driver error: operation not supported")),
        [],
    )
    check_allocator(said.append)
    assert given == ["expandable_segments:False"] and allocator_settings() == "expandable_segments:False"
    assert said == ["this GPU's driver has no expandable segments; memory is taken in segments of fixed size"]


def test_what_somebody_chose_is_not_given_up(monkeypatch):
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    given = refusing(monkeypatch, RuntimeError("CUDA driver error: operation not supported"))
    with pytest.raises(RuntimeError, match="not supported"):
        check_allocator()
    assert given == []


def test_a_full_gpu_is_not_taken_for_an_old_driver(monkeypatch):
    prefer_expandable_segments()
    given = refusing(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        check_allocator()
    assert given == [] and allocator_settings() == "expandable_segments:True"


def test_an_error_of_another_kind_is_raised(monkeypatch):
    prefer_expandable_segments()
    refusing(monkeypatch, RuntimeError("CUDA error: device-side assert triggered"), times=2)
    with pytest.raises(RuntimeError, match="assert"):
        check_allocator()
