"""All checks in order. Each finding is named, counted, explained and shown; what isn't there isn't listed."""

from __future__ import annotations

import numpy as np

from smpo.data.audit.crops import crops_of
from smpo.data.audit.duplicates import duplicates
from smpo.data.audit.expected import Expected
from smpo.data.audit.findings import Audit
from smpo.data.audit.labels import defects, repeats, ties
from smpo.data.audit.near_duplicates import near_duplicates
from smpo.data.audit.numbers import charts_of, vote_noise
from smpo.data.audit.prompts import LONGEST_IN_WORDS, Prompts, leaks, long_prompts
from smpo.data.audit.rows import AuditRows
from smpo.data.audit.sizes import sizes
from smpo.data.progress import Progress

__all__ = ["audit"]


def audit(book: AuditRows, expected: Expected, progress: Progress | None = None) -> Audit:
    """Look at every row and every image. Nothing is decided here: whether ties are dropped or votes merged is the
    spec's business."""
    sound = book.sound
    seen = near_duplicates(book, progress)
    pairs = book.pairs(sound)
    prompts = Prompts.of(book, sound, expected)
    found = [
        *defects(book),
        *ties(book, sound),
        *repeats(book, sound, pairs),
        *duplicates(book, sound, pairs, seen),
        *sizes(book, sound, expected),
        *long_prompts(book, prompts, expected),
        *leaks(book, sound, prompts, expected),
    ]
    images = np.unique(np.concatenate([book.first[sound], book.second[sound]]))
    notes = []
    if expected.tokens is None:
        notes.append(f"the model's tokenizer isn't here: prompts are measured in words, {LONGEST_IN_WORDS} at most")
    if book.picture is None:
        notes.append("the data has no pictures: only words and labels were looked at")
    if not expected.held_out:
        notes.append("the spec evaluates on no prompts, so none could leak")
    return Audit(
        facts={
            "rows": len(book),
            "sound_rows": len(sound),
            "pairs": len(pairs),
            "votes": int(book.votes[sound].sum()),
            "prompts": len(prompts.captions),
            "images": len(images),
            "files": [{"name": part["name"], "rows": part["rows"], "sha256": part["sha256"]} for part in book.parts],
        },
        findings=found,
        charts=charts_of(book, sound, pairs, images, prompts.lengths, expected),
        noise=vote_noise(book, sound, pairs),
        crops=crops_of(book, sound, expected),
        notes=notes,
    )
