"""ImageReward: a BLIP that has learned people's rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from smpo.components.locations import locate
from smpo.components.rewards.facts import blip_tflop
from smpo.components.rewards.learned import TEXTS, NetworkReward, absent
from smpo.kinds import Runtime, Scorer
from smpo.registry.component import register

__all__ = ["ImageReward"]


@register
class ImageReward(NetworkReward):
    """ImageReward: a BLIP that reads prompt and picture together, trained on people's rankings.

        score = (linear head of the first token - 0.167) / 1.033,  the prompt cut at 35 tokens

    Xu et al. 2023 (arXiv:2304.05977).
    """

    use: Literal["image-reward"] = "image-reward"
    version: ClassVar[int] = 1

    weights: str
    """Folder or hub id with the checkpoint and `med_config.json`."""
    file: str = "ImageReward.pt"
    """The checkpoint in it; a safetensors file of the same names will do."""
    tokenizer: str = "google-bert/bert-base-uncased"
    """Folder or hub id of BERT's tokenizer."""
    revision: str | None = None
    """Commit or tag of the weights on the hub; pin it."""

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.rewards.networks.image_reward import load_image_reward

        scorer = load_image_reward(
            locate(self.weights),
            file=self.file,
            tokenizer=locate(self.tokenizer),
            revision=self.revision,
            precision=self.precision,
            runtime=runtime,
        )
        return self._watched(scorer)

    def check(self) -> str | None:
        return absent(self.weights, self.file, revision=self.revision) or absent(self.tokenizer)

    def read(self) -> Mapping[str, Sequence[str]]:
        return {"weights": [self.file, "med_config.json"], "tokenizer": TEXTS}

    def tflop(self) -> float | None:
        return blip_tflop()
