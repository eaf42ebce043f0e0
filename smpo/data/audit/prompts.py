"""Prompts that are too long, and those that are evaluated on too."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from smpo.data.audit.expected import Expected
from smpo.data.audit.findings import Example, Finding, example_of
from smpo.data.audit.groups import grouped
from smpo.data.audit.rows import SHOWN, AuditRows
from smpo.data.pairs.interning import Array

__all__ = ["LONGEST_IN_WORDS", "Prompts", "leaks", "long_prompts", "normal_form"]

LONGEST_IN_WORDS = 55
"""About 75 tokens of a CLIP tokenizer, when the model's own isn't here."""


@dataclass(frozen=True)
class Prompts:
    """Those of some rows: numbers of their captions, the first row of each, and their lengths in tokens or words, all
    `[P]`."""

    captions: Array
    first: Array
    lengths: Array

    @classmethod
    def of(cls, book: AuditRows, rows: Array, expected: Expected) -> Prompts:
        captions = book.caption[rows]
        first = grouped(captions).first
        lengths = [np.array(_lengths(texts, expected), np.int32) for texts in book.texts(captions[first])]
        return cls(captions[first], rows[first], np.concatenate([np.empty(0, np.int32), *lengths]))


def _lengths(prompts: list[str], expected: Expected) -> Iterable[int]:
    if expected.tokens is not None:
        return list(expected.tokens(prompts))
    return [len(prompt.split()) for prompt in prompts]


def long_prompts(book: AuditRows, prompts: Prompts, expected: Expected) -> Iterable[Finding]:
    counted = expected.tokens is not None
    longest = (expected.longest or 77) if counted else LONGEST_IN_WORDS
    unit = "tokens" if counted else "words"
    long = np.flatnonzero(prompts.lengths > longest)
    if len(long):
        rows = book.some(prompts.first[long])
        yield Finding(
            "long_prompt", f"a prompt of more than {longest} {unit}", "doubtful", len(long), len(prompts.captions),
            "prompts", "The text encoder never reads the rest, which people may have voted by.",
            [Example(row.where, row.caption, (), f"{n} {unit}")
             for row, n in zip(rows, prompts.lengths[long[:SHOWN]].tolist(), strict=True)],
        )  # fmt: skip


def normal_form(prompt: str) -> str:
    """What stays of a prompt when case, accents' encoding, punctuation and spacing are set aside."""
    text = unicodedata.normalize("NFKC", prompt).casefold()
    return " ".join("".join(c if c.isalnum() or c.isspace() else " " for c in text).split())


def leaks(book: AuditRows, rows: Array, prompts: Prompts, expected: Expected) -> Iterable[Finding]:
    for set_name, held_out in expected.held_out.items():
        evaluated = {normal_form(prompt) for prompt in held_out}
        leaked = np.array(
            [normal_form(one) in evaluated for texts in book.texts(prompts.captions) for one in texts], bool
        )
        if leaked.any():
            concerned = int(np.isin(book.caption[rows], prompts.captions[leaked]).sum())
            yield Finding(
                "leaked_prompt", f"a training prompt that is also evaluated on ({set_name})", "doubtful",
                int(leaked.sum()), len(leaked), "prompts",
                f"{concerned:,} training row{'s' * (concerned != 1)}: a win on these prompts may be memory. Case, "
                "punctuation and spaces were set aside.",
                [example_of(row) for row in book.some(prompts.first[leaked])],
            )  # fmt: skip
