"""What scoring costs: FLOP of the networks behind rewards, from the shapes of their towers. No torch.

A block of a transformer on `n` tokens of width `d` with an inner width `m` multiplies `4 n d^2` (query, key, value,
output), `2 n d m` (the feed-forward) and `2 n^2 d` (attention); a multiply and an add count as two. Norms and
activations are left out, as the counter of torch leaves them out; tests compare the two.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from smpo.components.locations import locate

__all__ = ["Tower", "blip_tflop", "clip_tflop"]


@dataclass(frozen=True)
class Tower:
    """A transformer over `tokens`; `patch` is the side of a picture's patches, 0 for words."""

    tokens: int
    width: int
    inner: int
    depth: int
    patch: int = 0

    @property
    def tflop(self) -> float:
        n, d = self.tokens, self.width
        block = 8 * n * d * d + 4 * n * d * self.inner + 4 * n * n * d
        embedding = 2 * (n - 1) * 3 * self.patch**2 * d
        return (self.depth * block + embedding) / 1e12


_LARGE = (Tower(257, 1024, 4096, 24, patch=14), Tower(77, 768, 3072, 12))
_HUGE = (Tower(257, 1280, 5120, 32, patch=14), Tower(77, 1024, 4096, 24))
_PUBLISHED = {
    "openai/clip-vit-large-patch14": _LARGE,
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": _HUGE,
    "yuvalkirstain/PickScore_v1": _HUGE,
    "xswu/HPSv2": _HUGE,
}
_BLIP = (Tower(197, 1024, 4096, 24, patch=16), Tower(35, 768, 3072, 12))


def clip_tflop(place: str, *, words: bool = True) -> float | None:
    """Of one picture, and its prompt if `words`, through the CLIP called so or in a folder of transformers."""
    towers = _PUBLISHED.get(place) or _in_folder(Path(locate(place)))
    return None if towers is None else towers[0].tflop + words * towers[1].tflop


def blip_tflop() -> float:
    """Of one picture and prompt through ImageReward's BLIP, whose words look at the picture in every layer."""
    picture, words = _BLIP
    n, d, seen = words.tokens, words.width, picture.tokens
    cross = words.depth * (4 * n * d * d + 4 * seen * picture.width * d + 4 * n * seen * d) / 1e12
    return picture.tflop + words.tflop + cross


def _in_folder(folder: Path) -> tuple[Tower, Tower] | None:
    try:
        config = json.loads((folder / "config.json").read_text())
        eye, text = config["vision_config"], config["text_config"]
        side, patch = eye["image_size"], eye["patch_size"]
        tokens = (side // patch) ** 2 + 1
        return (
            Tower(tokens, eye["hidden_size"], eye["intermediate_size"], eye["num_hidden_layers"], patch),
            Tower(
                text["max_position_embeddings"],
                text["hidden_size"],
                text["intermediate_size"],
                text["num_hidden_layers"],
            ),
        )
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError, RecursionError):
        return None
