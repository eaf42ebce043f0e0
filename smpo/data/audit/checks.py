"""All checks in order. Each finding is named, counted, explained and shown; what isn't there isn't listed."""

from __future__ import annotations

from smpo.data.audit.book import Book
from smpo.data.audit.copies import alike
from smpo.data.audit.crops import crops_of
from smpo.data.audit.findings import Audit, Expected
from smpo.data.audit.labels import by_pair, defects, repeats, ties
from smpo.data.audit.looks import lookalikes
from smpo.data.audit.numbers import charts_of, vote_noise
from smpo.data.audit.sizes import sizes
from smpo.data.audit.wording import LONGEST_IN_WORDS, leaks, lengths_of, long_prompts
from smpo.data.index import Progress

__all__ = ["audit"]


def audit(book: Book, expected: Expected, progress: Progress | None = None) -> Audit:
    """Look at every row and every image. Nothing is decided here: whether ties are dropped or votes merged is the
    spec's business."""
    sound = [row for row in book.rows if row.sound]
    doubles = lookalikes(book, progress)
    votes = by_pair(sound)
    prompts = list(dict.fromkeys(row.caption for row in sound))
    lengths = lengths_of(prompts, expected)
    found = [
        *defects(book.rows),
        *ties(sound),
        *repeats(votes, len(sound)),
        *alike(sound, doubles),
        *sizes(sound, book, expected),
        *long_prompts(sound, lengths, expected),
        *leaks(sound, prompts, expected),
    ]
    images = {name for row in sound for name in (row.first, row.second)}
    notes = []
    if expected.tokens is None:
        notes.append(
            f"the model's tokenizer isn't here: prompts are measured in words, {LONGEST_IN_WORDS} at most"
        )
    if book.picture is None:
        notes.append("the data has no pictures: only words and labels were looked at")
    if not expected.held_out:
        notes.append("the spec evaluates on no prompts, so none could leak")
    return Audit(
        facts={
            "rows": len(book.rows),
            "sound_rows": len(sound),
            "pairs": len(votes),
            "votes": sum(row.votes for row in sound),
            "prompts": len(prompts),
            "images": len(images),
            "files": [
                {"name": part["name"], "rows": part["rows"], "sha256": part["sha256"]} for part in book.parts
            ],
        },
        findings=found,
        charts=charts_of(votes, images, book, lengths, expected),
        noise=vote_noise(votes),
        crops=crops_of(sound, book, expected),
        notes=notes,
    )


# ------------------------------------------------------------------------------------------------ rows and labels
