"""Rewards that compare a picture with its prompt in CLIP's space: PickScore, HPSv2, CLIP score, the shapes
world's own.

    score = cos(image, text)                        what SmPO's labels are made of, and HPS's own
    score = exp(logit_scale) · cos(image, text)     `scaled`: PickScore as it is usually quoted

Plain transformers classes, and a preprocessing of our own: without torchvision (which we don't want) the
library's image processor falls back to another backend, and scores must not depend on which packages are
installed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image
from torch import Tensor

from smpo.errors import MachineError, RunError, readable
from smpo.imaging.transfer import to_device
from smpo.kinds import Runtime
from smpo.rewards.networks.checkpoint_files import checkpoint_file, fill, read_tensors
from smpo.rewards.networks.clip_preprocessing import ClipPreprocessing
from smpo.rewards.networks.network import Layout, NetworkScorer, Precision, precision_facts
from smpo.rewards.networks.open_clip import renamed, unescaped
from smpo.rewards.networks.preprocessing import ShortSide, WholePicture
from smpo.weights import (
    content_key,
    locate,
    opened,
    read_json,
    tokenizer_of,
    weight_files,
    weight_patterns,
    whole,
)

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = [
    "ClipPreprocessing",
    "ClipScorer",
    "clip_patterns",
    "load_clip_scorer",
    "load_tokenizer",
    "preprocessing_of",
    "text_patterns",
    "token_length",
    "vectors",
    "vocabulary",
]

_VERSION = "clip/1"
"""Part of `key`: raise it when the same weights would give other scores."""
_LARGEST_SIDE = 8192
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


class ClipScorer(NetworkScorer):
    """A `kinds.Scorer` round a CLIPModel, in float32 or in `precision`; cosines are always taken in float32.

    Prompts are padded to the full length, not to the longest in the batch: causal attention makes that the
    same score, and it doesn't depend on the neighbours. `words` is done to a prompt before it is split.
    """

    _model: Any

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        preprocessing: Layout,
        *,
        scaled: bool,
        key: str,
        runtime: Runtime,
        words: Callable[[str], str] = str,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__(preprocessing, key=key, runtime=runtime, precision=precision)
        self._factor = float(model.logit_scale.detach().exp()) if scaled else 1.0
        self._hold("_model", model)
        self._tokenizer = tokenizer
        self._length = token_length(tokenizer, model)
        self._words = words

    def __call__(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Tensor:
        """`[N]` float32 on the CPU."""
        if len(pictures) != len(prompts):
            raise ValueError(f"{len(pictures)} pictures for {len(prompts)} prompts")
        return self._cosines(self.embed(pictures), prompts)

    def score(self, inputs: Sequence[Tensor], prompts: Sequence[str]) -> Tensor:
        """`inputs`: of `preprocess`, one for each prompt. `[N]` float32 on the CPU."""
        return self._cosines(self._all(self._images, inputs), prompts)

    def embed(self, pictures: Sequence[Picture]) -> Tensor:
        """`[N, D]` unit vectors on the CPU: how the tower sees pictures, whatever the prompt."""
        return self._all(lambda some: self._images([self.preprocess(picture) for picture in some]), pictures)

    def _cosines(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Each prompt is encoded once, however many pictures it has."""
        unique = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        texts = self._all(self._texts, list(unique))
        rows = torch.tensor([unique[prompt] for prompt in prompts], dtype=torch.long)
        return (images * texts[rows]).sum(dim=-1) * self._factor

    def _all(self, encode: Any, items: Sequence[Any]) -> Tensor:
        """Unit vectors `[N, D]` on the CPU, in batches."""
        parts = [encode(items[some]).float().cpu() for some in self._batches(len(items))]
        found = torch.cat(parts) if parts else torch.empty(0, 1)
        unit: Tensor = found / found.norm(dim=-1, keepdim=True)
        return unit

    def _images(self, inputs: Sequence[Tensor]) -> Tensor:
        return vectors(self._model.get_image_features(pixel_values=self._sent(inputs)))

    def _texts(self, prompts: Sequence[str]) -> Tensor:
        tokens = self._tokenizer(
            [self._words(prompt) for prompt in prompts],
            padding="max_length",
            truncation=True,
            max_length=self._length,
            return_tensors="pt",
        )
        ids, mask = (to_device(part, self._device) for part in (tokens.input_ids, tokens.attention_mask))
        return vectors(self._model.get_text_features(input_ids=ids, attention_mask=mask))


def clip_patterns() -> list[str]:
    """Files of a CLIP folder that `load_clip_scorer` reads: what is fetched from the hub."""
    return [*text_patterns(), *weight_patterns()]


def text_patterns() -> list[str]:
    """The same without weights: architecture, tokenizer and preprocessing."""
    texts = ["config.json", "tokenizer*.json", "vocab.json", "merges.txt", "special_tokens_map.json"]
    return [*texts, *_PROCESSOR_FILES]


def load_clip_scorer(  # noqa: PLR0913 -- settings of one call
    path_or_id: str | Path,
    *,
    processor: str | Path | None = None,
    revision: str | None = None,
    scaled: bool = False,
    file: str | None = None,
    pictures: Literal["processor", "openai", "whole"] = "processor",
    antialias: bool = True,
    precision: Precision = "fp32",
    runtime: Runtime,
) -> ClipScorer:
    """Bring a CLIP folder or hub repository into memory as a scorer.

    `processor` is where tokenizer and preprocessing lie, if elsewhere (PickScore's are those of
    `laion/CLIP-ViT-H-14-laion2B-s32B-b79K`). `revision` is of the weights. `file` is a checkpoint in open_clip's
    layout, for which `processor` gives the architecture too. `pictures`: laid out by the processor's configuration, as
    OpenAI's package does (`ShortSide`), or whole, as HPS does (`WholePicture`, for which `antialias` is). `precision`
    is that of both towers. Raises `MachineError` when something isn't here or doesn't fit.
    """
    from transformers import CLIPModel

    words = None
    if processor is not None and str(processor) != str(path_or_id):
        words = locate(processor, what="the reward's processor", patterns=text_patterns())
    if file is not None:
        path = checkpoint_file(path_or_id, file, what="the reward", revision=revision, also=text_patterns())
        words = words or path.parent
        model = _open_clip_model(path, words)
        files = [words / "config.json", path]
    else:
        folder = locate(path_or_id, what="the reward", patterns=clip_patterns(), revision=revision)
        words = words or folder
        model = whole(CLIPModel, "the reward", folder)
        files = [folder / "config.json", *weight_files(folder)]
    tokenizer = load_tokenizer(words, rows=int(model.config.text_config.vocab_size))
    side = int(model.config.vision_config.image_size)
    layout: ClipPreprocessing | ShortSide | WholePicture
    if pictures == "processor":
        layout = preprocessing_of(words)
    else:
        layout = ShortSide(side) if pictures == "openai" else WholePicture(side, antialias)
    facts = {"version": _VERSION, "scaled": scaled, "preprocessing": asdict(layout)}
    facts["vocabulary"] = vocabulary(tokenizer)
    facts |= precision_facts(precision)
    if pictures != "processor":
        facts["pictures"] = pictures
    with readable("the reward", words):
        scorer = ClipScorer(
            model,
            tokenizer,
            layout,
            scaled=scaled,
            key=content_key(facts, files),
            runtime=runtime,
            words=str if pictures == "processor" else unescaped,
            precision=precision,
        )
        scorer([Image.new("RGB", (8, 8))], [""])  # parts that don't fit each other show now, not in the middle of a run
    return scorer


def load_tokenizer(folder: Path, *, rows: int | None = None) -> Any:
    """A CLIP's tokenizer, see `tokenizer_of`. Raises `MachineError` when its files aren't there."""
    from transformers import CLIPTokenizer

    tokenizer = tokenizer_of(CLIPTokenizer, "the tokenizer", folder, rows=rows)
    with opened("the tokenizer", folder):
        tokenizer([""], padding="max_length", truncation=True, max_length=min(77, tokenizer.model_max_length))
        return tokenizer


def preprocessing_of(folder: Path) -> ClipPreprocessing:
    """A CLIP folder's preprocessing of pictures. Raises `RunError` when the folder has none."""
    config = _processor_config(folder)
    with readable("the image processor", folder):
        layout = ClipPreprocessing.from_config(config)
        sides = [side for side in (layout.short, *(layout.exact or ()), *(layout.crop or ())) if side is not None]
        if not all(isinstance(side, int) and 0 < side <= _LARGEST_SIDE for side in sides):
            raise MachineError(f"the image processor in {folder} asks for pictures of {sides}")
        layout(Image.new("RGB", (8, 8)))  # whatever else makes no sense shows now, not after the first update
    return layout


def token_length(tokenizer: Any, model: Any) -> int:
    """How many tokens the text tower takes: 77, for published ones."""
    return min(int(tokenizer.model_max_length), int(model.config.text_config.max_position_embeddings))


def vocabulary(tokenizer: Any) -> str:
    """Hash of what the tokenizer does, however its files are laid out; padding and cutting are up to us."""
    content = json.loads(tokenizer.backend_tokenizer.to_str()) | {"padding": None, "truncation": None}
    return hashlib.sha256(json.dumps([content, tokenizer.pad_token], sort_keys=True).encode()).hexdigest()


def vectors(output: Any) -> Tensor:
    """transformers 5 gives an object, 4 gave the tensor."""
    found: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return found


# ------------------------------------------------------------------------------------------------------------


def _open_clip_model(path: Path, words: Path) -> Any:
    """A checkpoint of open_clip's layout in transformers' class, with the architecture that lies in `words`."""
    from transformers import CLIPConfig, CLIPModel

    if not (words / "config.json").is_file():
        raise RunError(
            f"{words} has no config.json, so the architecture of {path.name} is unknown",
            help="set `processor` to the CLIP that this reward was made from",
        )
    with opened("the CLIP's config", words):
        config = CLIPConfig.from_pretrained(words)
    model = CLIPModel(config).float()
    fill(model, renamed(read_tensors(path, what="the reward")), path, what="a CLIP like that of `processor`")
    return model


def _processor_config(folder: Path) -> Mapping[str, Any]:
    """From its own file, or as a part of the processor's (transformers 5 writes it there)."""
    for name in _PROCESSOR_FILES:
        config = read_json(folder / name)
        if config:
            nested: Mapping[str, Any] = config.get("image_processor", config)
            return nested
    raise RunError(
        f"{folder} has no preprocessor_config.json, so how pictures should be prepared is unknown",
        help="set `processor` to the CLIP that this reward was made from",
    )
