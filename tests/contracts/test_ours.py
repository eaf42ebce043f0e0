"""Our own components, held to the contracts that third parties inherit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smpo.components import inversions, objectives, prompts, smoothings
from smpo.components.datasets import PickAPic, PlanePairs
from smpo.components.models import LoRA, Plane, StableDiffusion
from smpo.components.rewards import ClipPreference, PlaneOnAxis, PlaneRadius, ShapesJudge
from smpo.registry.component import REGISTRY
from smpo.testing import (
    DataContract,
    InversionContract,
    ModelContract,
    ObjectiveContract,
    OptimiserContract,
    PromptsContract,
    PrunerContract,
    RewardContract,
    SamplerContract,
    SmoothingContract,
)
from smpo.worlds.plane.world import CONDITIONS

EMOJI = Path(__file__).resolve().parents[3] / "shared" / "data" / "emoji_pairs"


def ours(kind, **settings):
    """Every component of a kind that comes with smpo, with its defaults or with settings by name."""
    return [
        part(**settings.get(name.replace("-", "_"), {}))
        for name, part in REGISTRY.of(kind).items()
        if part.__module__.startswith("smpo.components")
    ]


def named(component):
    return repr(component)[:60]


class Ours:
    declared_in = "smpo.components"


class TestSmoothings(Ours, SmoothingContract):
    @pytest.fixture(params=[*ours("smoothing"), smoothings.Likelihood(low=-1, high=2, clamp=True)], ids=named)
    def component(self, request):
        return request.param


class TestObjectives(Ours, ObjectiveContract):
    @pytest.fixture(params=[*ours("objective"), objectives.SmPO(gamma=1)], ids=named)
    def component(self, request):
        return request.param


class TestInversions(Ours, InversionContract):
    @pytest.fixture(params=[*ours("inversion"), inversions.NoInversion(shared=False)], ids=named)
    def component(self, request):
        return request.param


class TestOptimisers(Ours, OptimiserContract):
    @pytest.fixture(params=ours("optimiser"), ids=named)
    def component(self, request):
        return request.param


class TestPrompts(Ours, PromptsContract):
    @pytest.fixture(params=["plane", "shapes", "text", "parquet", "table", "hpdv2"])
    def component(self, request, tmp_path):
        if request.param == "table":
            (tmp_path / "prompts.csv").write_text("prompt,kind\na dog,animals\ntwo birds,animals\n")
            return prompts.TablePrompts(path=str(tmp_path / "prompts.csv"), category="kind")
        if request.param == "hpdv2":
            (tmp_path / "photo.json").write_text('["a dog", "two birds"]')
            return prompts.HPDv2Prompts(path=str(tmp_path), styles=["photo"])
        if request.param == "text":
            (tmp_path / "prompts.txt").write_text("# mine\na dog\n\ntwo birds\na dog\n")
            return prompts.TextPrompts(path=str(tmp_path / "prompts.txt"))
        if request.param == "parquet":
            return prompts.ParquetPrompts(path=str(EMOJI / "validation_unique.parquet"))
        return {"plane": prompts.PlanePrompts(repeats=2), "shapes": prompts.ShapesPrompts()}[request.param]


class TestData(Ours, DataContract):
    @pytest.fixture(params=["plane", "emoji"])
    def component(self, request):
        if request.param == "plane":
            return PlanePairs(limit=100)
        return PickAPic(path=str(EMOJI), split="validation_unique")


class TestShapesJudge(Ours, RewardContract):
    @pytest.fixture
    def component(self):
        return ShapesJudge()

    @pytest.fixture
    def prompts(self):
        return prompts.ShapesPrompts().load()[0].text, *(p.text for p in prompts.ShapesPrompts().load()[1:6])


class TestShapesReward(Ours, RewardContract):
    """A CLIP, with an embedding."""

    @pytest.fixture
    def component(self):
        return ClipPreference(weights="smpo:worlds/shapes/weights/reward")

    @pytest.fixture
    def prompts(self):
        return [p.text for p in prompts.ShapesPrompts().load()[:6]]


class TestPlaneRewards(Ours, RewardContract):
    @pytest.fixture(params=[PlaneRadius(scale=2), PlaneOnAxis()], ids=named)
    def component(self, request):
        return request.param

    @pytest.fixture
    def pictures(self):
        return list(np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32))

    @pytest.fixture
    def prompts(self):
        return CONDITIONS[:6]


class TestPlane(Ours, ModelContract):
    @pytest.fixture
    def component(self):
        return Plane()

    @pytest.fixture
    def pictures(self):
        return list(np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32))

    @pytest.fixture
    def prompts(self):
        return [CONDITIONS[0], CONDITIONS[3], "", CONDITIONS[3]]


class TestStableDiffusion(Ours, ModelContract):
    """The shapes base, which is a genuine pipeline: trained whole, and through an adapter."""

    @pytest.fixture(params=[None, LoRA(rank=2)], ids=["full", "lora"])
    def component(self, request):
        return StableDiffusion(weights="smpo:worlds/shapes/weights/base", lora=request.param)

    @pytest.fixture
    def pictures(self):
        colours = np.random.default_rng(0).integers(0, 256, size=(4, 64, 64, 3), dtype=np.uint8)
        return [Image.fromarray(one) for one in colours]

    @pytest.fixture
    def prompts(self):
        red = "a red circle on a black background"
        return [red, "a blue star on a white background", "", red]


class TestSamplers(Ours, SamplerContract):
    @pytest.fixture(params=ours("sampler"), ids=named)
    def component(self, request):
        return request.param


class TestPruners(Ours, PrunerContract):
    @pytest.fixture(params=ours("pruner", hyperband={"last": 10}), ids=named)
    def component(self, request):
        return request.param


def test_a_contract_without_a_component_says_what_is_missing(pytester):
    pytester.makepyfile("from smpo.testing import ComponentContract\nclass TestMine(ComponentContract):\n    pass\n")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-q")
    result.assert_outcomes(errors=5)
    result.stdout.fnmatch_lines(["*TestMine needs a fixture `component`*"])


def test_contracts_find_what_is_wrong(pytester):
    pytester.makepyfile(
        """
        from typing import Literal
        import pytest, torch
        from smpo.api import Smoothing
        from smpo.testing import SmoothingContract

        class Biased(Smoothing):
            \"\"\"Always believes in the first image.\"\"\"
            use: Literal["biased"] = "biased"
            strength: float = 0.9

            def __call__(self, winner, loser, share, stats):
                return torch.full_like(share, self.strength) + 0 * winner.mean()

        class TestBiased(SmoothingContract):
            @pytest.fixture
            def component(self):
                return Biased()
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-q")
    lines = result.stdout.str()
    assert "a setting needs a docstring: strength" in lines
    assert "test_swapping_the_pair_gives_one_minus_it" in lines
