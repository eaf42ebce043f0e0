"""PickScore, HPSv2 and CLIP score: how well a CLIP finds picture and prompt to go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from smpo.components.locations import locate
from smpo.components.rewards.facts import clip_tflop
from smpo.components.rewards.learned import TEXTS, NetworkReward, absent
from smpo.kinds import Runtime, Scorer
from smpo.registry.component import register
from smpo.spec.identity import Neutral

__all__ = ["ClipPreference"]


@register
class ClipPreference(NetworkReward):
    """A CLIP trained on preferences, as PickScore and HPSv2 are: cosine of image and prompt embeddings.

        score = cos(image, prompt),  times exp(logit_scale) when `scaled`

    Kirstain et al. 2023 (arXiv:2305.01569). SmPO's labels use the bare cosine; tables print the scaled score.
    """

    use: Literal["clip-preference"] = "clip-preference"
    version: ClassVar[int] = 1

    weights: str
    """Folder or hub id of a transformers CLIPModel, or of what `file` is in; `smpo:...` ships with smpo."""
    processor: str | None = None
    """Folder or hub id of tokenizer and image settings; null means beside the weights."""
    revision: str | None = None
    """Commit or tag on the hub; pin it."""
    scaled: bool = False
    """Multiply by the model's own temperature."""
    file: Annotated[str | None, Neutral(None)] = None
    """A checkpoint in open_clip's layout, as HPSv2's is; the architecture is then the processor's."""
    pictures: Annotated[Literal["processor", "openai", "whole"], Neutral("processor")] = "processor"
    """How pictures are laid out: as the processor's configuration has it, as OpenAI's package does, or whole and
    padded, as HPSv2's."""
    antialias: Annotated[bool, Neutral(True)] = True
    """For `whole`: shrink tensors smoothly, as torchvision does since 0.17; false is how it was before."""

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.rewards.networks.clip_like import load_clip_scorer

        scorer = load_clip_scorer(
            locate(self.weights),
            processor=locate(self.processor) if self.processor else None,
            revision=self.revision,
            scaled=self.scaled,
            file=self.file,
            pictures=self.pictures,
            antialias=self.antialias,
            precision=self.precision,
            runtime=runtime,
        )
        return self._watched(scorer)

    def check(self) -> str | None:
        return absent(self.weights, self.file or "model*.safetensors", revision=self.revision) or absent(self.processor)

    def read(self) -> Mapping[str, Sequence[str]]:
        return {"weights": [self.file or "model.safetensors", *TEXTS], "processor": TEXTS}

    def tflop(self) -> float | None:
        return clip_tflop(self.processor or self.weights) or clip_tflop(self.weights)
