"""ImageReward: how well a picture pleases and fits its prompt, by a BLIP with a linear head.

    score = (head(CLS) - 0.1672) / 1.0333,   CLS = BERT's first token after looking at the picture

Xu et al. 2023 (arXiv:2304.05977). Prompts are cut at 35 tokens, which is short: longer ones differ in what isn't read.
They are BERT's, with two added tokens, [DEC] and [ENC], that the vocabulary counts and the score never uses: a text
starts with [CLS].
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from smpo.errors import MachineError
from smpo.imaging.transfer import to_device
from smpo.kinds import Runtime
from smpo.rewards.networks.aesthetic import linear_head
from smpo.rewards.networks.blip import BertShape, CrossBert, VisionTransformer
from smpo.rewards.networks.checkpoint_files import checkpoint_file, fill, read_tensors
from smpo.rewards.networks.network import NetworkScorer, Precision, precision_facts
from smpo.rewards.networks.preprocessing import ShortSide
from smpo.weights import content_key, locate, read_json, tokenizer_of

if TYPE_CHECKING:
    pass

__all__ = ["ImageRewardNetwork", "ImageRewardScorer", "load_image_reward"]

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the head's output over the published training data."""
LENGTH = 35
"""Tokens of a prompt, [CLS] and [SEP] among them."""
_VERSION = "image-reward/1"
_HEAD_WIDTH = 64
"""Width of a head of attention in every published vision transformer of this family."""
_USED = ("blip.visual_encoder.", "blip.text_encoder.", "mlp.")
_UNUSED = re.compile(r"(_encoder_m\.|\.position_ids$)")
"""Leftovers of training: momentum twins and a buffer that counts from 0 to 511."""


class ImageRewardNetwork(nn.Module):
    """Pixels and tokens to scores, `[N]`. Parameters have the published checkpoint's names."""

    def __init__(self, vision: VisionTransformer, text: CrossBert, width: int) -> None:
        super().__init__()
        self.blip = nn.ModuleDict({"visual_encoder": vision, "text_encoder": text})
        self.mlp = nn.ModuleDict({"layers": linear_head(width)})

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        seen = self.blip["visual_encoder"](pixels)
        first = self.blip["text_encoder"](ids, mask, seen)[:, 0]
        raw: Tensor = self.mlp["layers"](first.float())[:, 0]  # the head is in float32, whatever the rest is
        return (raw - MEAN) / STD


class ImageRewardScorer(NetworkScorer):
    """A `kinds.Scorer` round the network. Each picture is seen with its own prompt alone."""

    _network: Any

    def __init__(
        self,
        network: ImageRewardNetwork,
        tokenizer: Any,
        preprocessing: ShortSide,
        *,
        key: str,
        runtime: Runtime,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__(preprocessing, key=key, runtime=runtime, precision=precision)
        self._hold("_network", network)
        network.mlp.float()
        self._tokenizer = tokenizer

    def _score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        tokens = self._tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
        )
        ids, mask = (to_device(part, self._device) for part in (tokens.input_ids, tokens.attention_mask))
        found: Tensor = self._network(pixels, ids, mask)
        return found


def load_image_reward(
    path_or_id: str | Path,
    *,
    file: str,
    tokenizer: str | Path,
    revision: str | None = None,
    precision: Precision = "fp32",
    runtime: Runtime,
) -> ImageRewardScorer:
    """`file` is the checkpoint in the folder or repository, which also has `med_config.json`; `tokenizer` is BERT's.

    Raises `MachineError` when something isn't here or doesn't fit.
    """
    from transformers import BertTokenizer

    what = "ImageReward"
    path = checkpoint_file(path_or_id, file, what=what, revision=revision, also=[_CONFIG])
    words = locate(tokenizer, what="ImageReward's tokenizer", patterns=_TOKENIZER)
    split = tokenizer_of(BertTokenizer, "the tokenizer", words)
    split.add_tokens(["[DEC]", "[ENC]"], special_tokens=True)
    tensors = {
        name: tensor.float()
        for name, tensor in read_tensors(path, what=what).items()
        if name.startswith(_USED) and not _UNUSED.search(name)
    }
    network, side = _network(tensors, read_json(path.parent / _CONFIG), path)
    fill(network, tensors, path, what=what)
    if len(split) > len(tensors["blip.text_encoder.embeddings.word_embeddings.weight"]):
        raise MachineError(f"the tokenizer in {words} has more words than {path} knows")
    preprocessing = ShortSide(side)
    facts = {"version": _VERSION, "preprocessing": asdict(preprocessing), "vocabulary": _words(split)}
    facts |= precision_facts(precision)
    config = path.parent / _CONFIG
    key = content_key(facts, [*([config] if config.is_file() else []), path])
    return ImageRewardScorer(network, split, preprocessing, key=key, runtime=runtime, precision=precision)


# ------------------------------------------------------------------------------------------------------------

_CONFIG = "med_config.json"
_TOKENIZER = ["vocab.txt", "tokenizer*.json", "special_tokens_map.json"]


def _network(tensors: Mapping[str, Tensor], config: Mapping[str, Any], path: Path) -> tuple[ImageRewardNetwork, int]:
    """An empty network of the checkpoint's size, and the side of its pictures. Numbers of heads aren't in tensors."""
    vision, text = "blip.visual_encoder.", "blip.text_encoder."
    try:
        width, _, patch, _ = tensors[f"{vision}patch_embed.proj.weight"].shape
        patches = tensors[f"{vision}pos_embed"].shape[1] - 1
        inner = tensors[f"{vision}blocks.0.mlp.fc1.weight"].shape[0]
        vocabulary, wide = tensors[f"{text}embeddings.word_embeddings.weight"].shape
        positions = tensors[f"{text}embeddings.position_embeddings.weight"].shape[0]
        text_inner = tensors[f"{text}encoder.layer.0.intermediate.dense.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise MachineError(f"{path} is not ImageReward: it lacks {error}") from error
    side = round(patches**0.5) * patch
    vit = VisionTransformer(
        side=side,
        patch=patch,
        width=width,
        depth=_depth(tensors, f"{vision}blocks."),
        heads=max(1, width // _HEAD_WIDTH),
        inner=inner,
    )
    shape = BertShape(
        vocabulary=vocabulary,
        width=wide,
        depth=_depth(tensors, f"{text}encoder.layer."),
        heads=int(config.get("num_attention_heads", max(1, wide // _HEAD_WIDTH))),
        inner=text_inner,
        positions=positions,
        eps=float(config.get("layer_norm_eps", BertShape.eps)),
        seen=width,
    )
    return ImageRewardNetwork(vit, CrossBert(shape), wide), side


def _depth(tensors: Mapping[str, Tensor], stem: str) -> int:
    return len({name[len(stem) :].split(".")[0] for name in tensors if name.startswith(stem)})


def _words(tokenizer: Any) -> str:
    content = json.loads(tokenizer.backend_tokenizer.to_str()) | {"padding": None, "truncation": None}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
