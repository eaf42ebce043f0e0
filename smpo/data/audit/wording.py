"""Prompts that are too long, and those that are evaluated on too."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from smpo.data.audit.book import Row
from smpo.data.audit.findings import SHOWN, Example, Expected, Finding, example_of

__all__ = ["LONGEST_IN_WORDS", "leaks", "lengths_of", "long_prompts", "normal_form"]

LONGEST_IN_WORDS = 55
"""About 75 tokens of a CLIP tokenizer, when the model's own isn't here."""


def lengths_of(prompts: Sequence[str], expected: Expected) -> list[int]:
    if expected.tokens is not None:
        return list(expected.tokens(prompts))
    return [len(prompt.split()) for prompt in prompts]


def long_prompts(rows: Sequence[Row], lengths: Sequence[int], expected: Expected) -> Iterable[Finding]:
    prompts = list(dict.fromkeys(row.caption for row in rows))
    counted = expected.tokens is not None
    longest = (expected.longest or 77) if counted else LONGEST_IN_WORDS
    long = {prompt: n for prompt, n in zip(prompts, lengths, strict=True) if n > longest}
    if long:
        concerned = {row.caption: row for row in reversed(rows) if row.caption in long}
        yield Finding(
            "long_prompt", f"a prompt of more than {longest} {'tokens' if counted else 'words'}", "doubtful", len(long),
            len(prompts), "prompts", "The text encoder never reads the rest, which people may have voted by.",
            [Example(row.where, p, (), f"{long[p]} {'tokens' if counted else 'words'}")
             for p, row in reversed(list(concerned.items()))][:SHOWN],
        )  # fmt: skip


def normal_form(prompt: str) -> str:
    """What stays of a prompt when case, accents' encoding, punctuation and spacing are set aside."""
    text = unicodedata.normalize("NFKC", prompt).casefold()
    return " ".join("".join(c if c.isalnum() or c.isspace() else " " for c in text).split())


def leaks(rows: Sequence[Row], prompts: Sequence[str], expected: Expected) -> Iterable[Finding]:
    for set_name, held_out in expected.held_out.items():
        evaluated = {normal_form(prompt) for prompt in held_out}
        leaked = {prompt for prompt in prompts if normal_form(prompt) in evaluated}
        if leaked:
            first: dict[str, Row] = {}
            for row in rows:
                if row.caption in leaked:
                    first.setdefault(row.caption, row)
            concerned = sum(row.caption in leaked for row in rows)
            yield Finding(
                "leaked_prompt", f"a training prompt that is also evaluated on ({set_name})", "doubtful", len(leaked),
                len(prompts), "prompts",
                f"{concerned:,} training row{'s' * (concerned != 1)}: a win on these prompts may be memory. Case, "
                "punctuation and spaces were set aside.",
                [example_of(row) for row in list(first.values())[:SHOWN]],
            )  # fmt: skip


# ------------------------------------------------------------------------------------------------ numbers
