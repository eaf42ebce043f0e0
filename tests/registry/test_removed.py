"""Runs of earlier versions name settings that smpo no longer has."""

from pathlib import Path

import pytest

from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import resolve
from smpo.spec.problems import SpecProblems
from smpo.spec.removed import without

PLANE = Path(__file__).parents[2] / "experiments" / "plane_smpo.yaml"
NEUTRAL = ("runtime.prompts_once=false", "runtime.fused_qkv=false", "inversion.precision=training")


def test_a_setting_that_did_nothing_is_left_out_of_spec_and_identity():
    today, earlier = (resolve(PLANE, skeleton=ExperimentSpec, sets=sets) for sets in ((), NEUTRAL))
    assert earlier.spec == today.spec and earlier.identity == today.identity


@pytest.mark.parametrize("one", ["runtime.prompts_once=true", "runtime.fused_qkv=0", "inversion.precision=fp8"])
def test_with_another_value_it_is_refused(one):
    with pytest.raises(SpecProblems, match="is not a setting of") as caught:
        resolve(PLANE, skeleton=ExperimentSpec, sets=[one])
    assert "removed" in caught.value.problems[0].label


def test_other_input_than_a_mapping_is_returned_as_it_is():
    assert without([1], {"a": 1}) == [1] and without({"a": 1, "b": 1}, {"a": 1}) == {"b": 1}
