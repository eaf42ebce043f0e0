"""LAION's aesthetic predictor: how pretty a picture is, whatever the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from smpo.components.locations import locate
from smpo.components.rewards.facts import clip_tflop
from smpo.components.rewards.learned import NetworkReward, absent
from smpo.kinds import Runtime, Scorer
from smpo.registry.component import register

__all__ = ["LaionAesthetic"]


@register
class LaionAesthetic(NetworkReward):
    """LAION's aesthetic predictor: a linear head on CLIP's picture embedding. It never sees the prompt.

    A policy may please it with any pretty picture: judge with it, but don't train on it alone.
    """

    use: Literal["laion-aesthetic"] = "laion-aesthetic"
    version: ClassVar[int] = 1

    weights: str
    """Folder or hub id with the head."""
    file: str = "sac+logos+ava1-l14-linearMSE.pth"
    """The head in it."""
    clip: str = "openai/clip-vit-large-patch14"
    """Folder or hub id of the CLIP whose embeddings the head was trained on."""
    revision: str | None = None
    """Commit or tag of the head on the hub; pin it."""
    clip_revision: str | None = None
    """Commit or tag of the CLIP on the hub; pin it."""

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.rewards.networks.aesthetic import load_aesthetic_scorer

        scorer = load_aesthetic_scorer(
            locate(self.weights),
            file=self.file,
            clip=locate(self.clip),
            revision=self.revision,
            clip_revision=self.clip_revision,
            precision=self.precision,
            runtime=runtime,
        )
        return self._watched(scorer)

    def check(self) -> str | None:
        return absent(self.weights, self.file, revision=self.revision) or absent(self.clip, revision=self.clip_revision)

    def read(self) -> Mapping[str, Sequence[str]]:
        return {"weights": [self.file], "clip": ["config.json", "model.safetensors"]}

    def tflop(self) -> float | None:
        return clip_tflop(self.clip, words=False)
