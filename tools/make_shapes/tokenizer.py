"""The world's tokenizer: CLIP's, with one token for each of the world's words and bytes for all others.

Byte-pair merges are learnt until every word of the captions is whole. Other datasets' captions pass
through it too: unknown words fall apart into bytes, never into an error or an unknown token.
"""

from __future__ import annotations

import json
from typing import Any

from smpo.worlds.shapes.prompts import COMBOS, captions

MAX_LENGTH = 24
START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer() -> Any:
    """A CLIPTokenizer of about 600 tokens; deterministic, learnt in a blink."""
    from tokenizers import Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel, Whitespace
    from transformers import CLIPTokenizer

    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = Whitespace()
    texts = [caption for combo in COMBOS for caption in captions(combo)]
    learner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=4000, end_of_word_suffix="</w>", show_progress=False)
    )
    merges = [tuple(m) for m in json.loads(learner.to_str())["model"]["merges"]]
    letters = sorted(ByteLevel.alphabet())
    known = [*letters, *(letter + "</w>" for letter in letters)]
    known += [token for token in dict.fromkeys("".join(m) for m in merges) if token not in set(known)]
    vocabulary = {token: i for i, token in enumerate([*known, START, END])}
    # tokenizers takes pairs; transformers' annotation has strings only.
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)  # type: ignore[arg-type]
