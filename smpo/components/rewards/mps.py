"""MPS: one CLIP for several kinds of preference, chosen by a condition in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from smpo.components.locations import locate
from smpo.components.rewards.facts import clip_tflop
from smpo.components.rewards.learned import TEXTS, NetworkReward, absent
from smpo.kinds import Runtime, Scorer
from smpo.registry.component import register

__all__ = ["MPS"]


@register
class MPS(NetworkReward):
    """MPS: a CLIP whose picture is read in the light of those words of the prompt that a condition selects.

        score = exp(logit_scale) · cos(picture after cross-attention, prompt)

    Zhang et al. 2024 (arXiv:2405.14705).
    """

    use: Literal["mps"] = "mps"
    version: ClassVar[int] = 1

    weights: str
    """Folder or hub id with the checkpoint. The published `.pth` is a pickled module and has to be saved again."""
    file: str = "model.safetensors"
    """The checkpoint in it."""
    clip: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    """Folder or hub id of architecture, tokenizer and image settings; its weights aren't needed."""
    revision: str | None = None
    """Commit or tag of the checkpoint on the hub; pin it."""
    condition: str = (
        "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, "
        "instance, texture, quantity, attributes, position, number, location, word, things."
    )
    """What matters; the default is the published one for overall preference."""
    threshold: float = Field(0.3, ge=0, lt=1)
    """Prompt tokens at most so similar to the condition, relative to the most similar, are masked. 0.3 is what the
    published evaluation scripts use, 0.01 the published model's own `forward`."""

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.rewards.networks.mps import load_mps

        scorer = load_mps(
            locate(self.weights),
            file=self.file,
            clip=locate(self.clip),
            condition=self.condition,
            threshold=self.threshold,
            revision=self.revision,
            precision=self.precision,
            runtime=runtime,
        )
        return self._watched(scorer)

    def check(self) -> str | None:
        return absent(self.weights, self.file, revision=self.revision) or absent(self.clip)

    def read(self) -> Mapping[str, Sequence[str]]:
        return {"weights": [self.file], "clip": TEXTS}

    def tflop(self) -> float | None:
        return clip_tflop(self.clip)
