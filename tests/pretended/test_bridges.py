"""The tool attaches to smpo's modules by name: whoever moves one of them reads here where the name has to follow."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


def test_everything_that_is_bridged_is_where_the_tool_looks_for_it(module_of_the_tool):
    bridges = module_of_the_tool("python/bridges.py")
    for name in bridges.BRIDGES:
        lost = list(bridges.missing(importlib.import_module(name)))
        assert not lost, f"{name} has no {lost} any more: change tools/pretended_gpu/python/bridges.py"


def test_the_hook_watches_the_modules_that_have_bridges(module_of_the_tool):
    hook, bridges = module_of_the_tool("hook.py"), module_of_the_tool("python/bridges.py")
    assert set(hook.BRIDGED) == set(bridges.BRIDGES)


def test_a_name_that_has_moved_is_an_error_in_words(module_of_the_tool):
    bridges = module_of_the_tool("python/bridges.py")
    moved = ModuleType("smpo.engine.loop")
    with pytest.raises(RuntimeError, match=r"smpo.engine.loop has no assert_starts_at_reference any more"):
        bridges.bridge(moved)


def test_the_matrix_watches_the_loop_where_it_is():
    """tools/pretended_gpu/matrix.py replaces it for the length of a run."""
    loop = importlib.import_module("smpo.engine.loop")
    updates = importlib.import_module("smpo.app.run.nan_policy")
    assert callable(loop.fit) and not hasattr(updates, "fit"), "it is looked up when it is called"
