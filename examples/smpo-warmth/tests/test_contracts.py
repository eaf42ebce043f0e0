"""The plug-in keeps what smpo expects of its kinds. Five lines a component; everything else is inherited."""

import pytest
from PIL import Image
from smpo_warmth import DeadZone, FocalDPO, Warmth

from smpo.api import Runtime
from smpo.testing import ObjectiveContract, RewardContract, SmoothingContract


class TestWarmth(RewardContract):
    @pytest.fixture
    def component(self):
        return Warmth(strength=2.0)

    def test_red_is_warm_and_blue_is_not(self, component, tmp_path):
        scorer = component.load(Runtime(cache=tmp_path))
        pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "grey", "blue")]
        assert scorer(pictures, [""] * 3).tolist() == [2.0, 0.0, -2.0]


class TestDeadZone(SmoothingContract):
    @pytest.fixture
    def component(self):
        return DeadZone()


class TestFocalDPO(ObjectiveContract):
    @pytest.fixture(params=[0.0, 2.0])
    def component(self, request):
        return FocalDPO(focus=request.param)
