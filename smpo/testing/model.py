"""What a model promises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from smpo.kinds import Conditioning, Denoiser, Model, Placement, Runtime
from smpo.testing.component import CheckedContract

__all__ = ["ModelContract"]


class ModelContract(CheckedContract):
    """A policy and its frozen original, which start out equal; samples that depend on prompt and seed alone."""

    guidance = 3.0
    steps = 2
    """For the samples that are drawn here."""

    @pytest.fixture
    def runtime(self, tmp_path: Path) -> Runtime:
        return Runtime(cache=tmp_path)

    @pytest.fixture
    def pictures(self) -> Sequence[Any]:
        """Four pictures to encode."""
        import numpy as np
        from PIL import Image

        noise = np.random.default_rng(0)
        return [Image.fromarray(noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(4)]

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        """Four prompts, the empty one among them."""
        return ["a red square", "a dog", "", "a dog"]

    @pytest.fixture
    def denoiser(self, component: Model, runtime: Runtime) -> Denoiser:
        """The live thing; skipped where its weights aren't."""
        if reason := component.check():
            pytest.skip(reason)
        return component.load(runtime)

    def test_its_facts_come_without_loading(self, component: Model) -> None:
        facts = component.facts()
        assert isinstance(facts.weights, str)
        assert facts.timesteps is None or facts.timesteps > 0

    def test_its_facts_are_true(self, component: Model, denoiser: Denoiser) -> None:
        facts = component.facts()
        assert facts.timesteps in (None, len(denoiser.schedule.alphas_cumprod))
        counted = sum(p.numel() for p in denoiser.policy.parameters() if p.requires_grad)
        assert facts.trainable in (None, counted)

    def test_pictures_become_latents(self, denoiser: Denoiser, pictures: Sequence[Any]) -> None:
        encoded = denoiser.encode_pictures(pictures, [Placement()] * len(pictures))
        for name in ("mean", "std"):
            assert encoded[name].shape == (len(pictures), *denoiser.latent_shape)
        assert bool((encoded["std"] >= 0).all()) and not encoded["mean"].requires_grad
        alone = denoiser.encode_pictures(pictures[1:2], [Placement()])
        torch.testing.assert_close(alone["mean"][0], encoded["mean"][1], rtol=1e-4, atol=1e-4)

    def test_policy_and_reference_start_equal(
        self, denoiser: Denoiser, pictures: Sequence[Any], prompts: Sequence[str]
    ) -> None:
        """To the last bit: the loss multiplies their difference by thousands."""
        x, t, cond = self._batch(denoiser, pictures, prompts)
        with torch.no_grad():
            policy = denoiser.predict(x, t, cond)
            reference = denoiser.predict(x, t, cond, reference=True)
        assert policy.shape == x.shape and policy.dtype == torch.float32
        assert torch.equal(policy, reference)
        assert torch.equal(denoiser.predict(x, t, cond).detach(), reference), "with gradients too"

    def test_a_pass_of_an_inversion_differs_by_rounding(
        self, denoiser: Denoiser, pictures: Sequence[Any], prompts: Sequence[str]
    ) -> None:
        x, t, cond = self._batch(denoiser, pictures, prompts)
        for reference in (False, True):
            with torch.no_grad():
                found = denoiser.predict(x, t, cond, reference=reference, inverting=True)
                wanted = denoiser.predict(x, t, cond, reference=True)
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)

    def test_only_the_policy_is_trained(
        self, denoiser: Denoiser, pictures: Sequence[Any], prompts: Sequence[str]
    ) -> None:
        x, t, cond = self._batch(denoiser, pictures, prompts)
        assert not denoiser.predict(x, t, cond, reference=True).requires_grad
        denoiser.predict(x, t, cond).square().mean().backward()
        trained = [p for p in denoiser.policy.parameters() if p.requires_grad]
        assert trained and any(p.grad is not None and bool(p.grad.any()) for p in trained)
        with torch.no_grad():
            before = denoiser.predict(x, t, cond, reference=True)
            for parameter in trained:
                parameter.add_(0.01)
            assert torch.equal(denoiser.predict(x, t, cond, reference=True), before), "the original stays"
            assert not torch.equal(denoiser.predict(x, t, cond), before)

    def test_a_sample_depends_on_its_prompt_and_seed(self, denoiser: Denoiser, prompts: Sequence[str]) -> None:
        def draw(these: Sequence[str], seeds: Sequence[int]) -> list[Any]:
            return denoiser.sample(these, seeds, guidance=self.guidance, steps=self.steps)

        import numpy as np

        whole, alone = draw(prompts, [5, 6, 7, 6]), draw(prompts[1:2], [6])
        assert len(whole) == len(prompts)
        np.testing.assert_allclose(np.asarray(alone[0], dtype=float), np.asarray(whole[1], dtype=float), atol=1.01)

    def test_it_is_saved_for_others(self, denoiser: Denoiser, tmp_path: Path) -> None:
        lines = denoiser.save(tmp_path / "model")
        assert any((tmp_path / "model").rglob("*.safetensors"))
        assert lines and all(isinstance(line, str) for line in lines)

    def test_its_keys_are_by_content(self, component: Model, denoiser: Denoiser, runtime: Runtime) -> None:
        """Caches are filed under them."""
        again = component.load(runtime)
        assert again.encoder_key == denoiser.encoder_key != ""
        assert again.weights_key == denoiser.weights_key != ""

    @staticmethod
    def _batch(
        denoiser: Denoiser, pictures: Sequence[Any], prompts: Sequence[str]
    ) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
        encoded = denoiser.encode_pictures(pictures, [Placement()] * len(pictures))
        rows = {name: value for name, value in encoded.items() if name not in ("mean", "std")}
        cond = Conditioning(denoiser.encode_prompts(prompts)).merged(rows).to(denoiser.device)
        t = torch.tensor([10, 300, 600, 900], device=denoiser.device)
        return encoded["mean"].float().to(denoiser.device), t, cond
