"""The findings of an audit. Each is named, counted, explained and shown by examples; what isn't there isn't listed."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from smpo.data.audit.book import Book, Row
from smpo.data.audit.looks import lookalikes
from smpo.data.audit.margins import Margins
from smpo.data.index import CHOICES, DEFECTS, Progress

__all__ = ["Audit", "Example", "Expected", "Finding", "audit", "normal_form"]

Weight = Literal["lost", "doubtful", "plain"]

SHOWN = 6
"""Examples of each finding."""

CROP = 0.25
"""Share of a picture that may be cut away unremarked: 4:3 loses exactly that."""

LONGEST_IN_WORDS = 55
"""About 75 tokens of a CLIP tokenizer, when the model's own isn't here."""


@dataclass(frozen=True)
class Expected:
    """What the data is for. `tokens` counts a prompt's tokens, with those that begin and end it; without it, words
    are counted. `held_out`: names of prompt sets and what is in them."""

    resolution: int | None = None
    tokens: Callable[[Sequence[str]], Sequence[int]] | None = None
    longest: int | None = None
    held_out: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    where: str
    prompt: str
    images: tuple[str, ...] = ()
    """Content ids; the preferred one first, where somebody preferred one."""
    note: str = ""
    preferred: bool = False
    """Whether the first image was preferred."""


@dataclass(frozen=True)
class Finding:
    """`count` of `of` `unit` are concerned. `lost` rows are never trained on, `doubtful` ones are, `plain` is worth
    knowing."""

    name: str
    title: str
    weight: Weight
    count: int
    of: int
    unit: str
    meaning: str
    examples: list[Example] = field(default_factory=list)


@dataclass
class Audit:
    """Everything that was found. `facts` are counts; `charts` are bars by name; `noise` is what the votes themselves
    say about how often one is wrong."""

    facts: dict[str, Any]
    findings: list[Finding]
    charts: dict[str, list[tuple[str, int]]]
    noise: dict[str, Any]
    margins: Margins | None = None
    disputed: list[Example] = field(default_factory=list)
    """Pairs in which the reward contradicts the label most."""
    notes: list[str] = field(default_factory=list)
    """What couldn't be looked at, and why."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def audit(book: Book, expected: Expected, progress: Progress | None = None) -> Audit:
    """Look at every row and every image. Nothing is decided here: whether ties are dropped or votes merged is the
    spec's business."""
    sound = [row for row in book.rows if row.sound]
    doubles = lookalikes(book, progress)
    votes = _by_pair(sound)
    prompts = list(dict.fromkeys(row.caption for row in sound))
    lengths = _lengths(prompts, expected)
    found = [
        *_defects(book.rows),
        *_ties(sound),
        *_repeats(votes, len(sound)),
        *_alike(sound, doubles),
        *_sizes(sound, book, expected),
        *_long(sound, lengths, expected),
        *_leaks(sound, prompts, expected),
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
        charts=_charts(votes, images, book, lengths, expected),
        noise=_noise(votes),
        notes=notes,
    )


# ------------------------------------------------------------------------------------------------ rows and labels


def _defects(rows: Sequence[Row]) -> Iterable[Finding]:
    by_reason: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.defect:
            by_reason[row.defect].append(row)
    for name, concerned in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        chosen = name in CHOICES
        yield Finding(
            name=name,
            title=(CHOICES | DEFECTS)[name],
            weight="plain" if chosen else "lost",
            count=len(concerned),
            of=len(rows),
            unit="rows",
            meaning="Left out as the spec asks."
            if chosen
            else "Training drops the row: both images and the vote.",
            examples=[_example(row, row.detail) for row in concerned[:SHOWN]],
        )


def _ties(rows: Sequence[Row]) -> Iterable[Finding]:
    tied = [row for row in rows if row.share == 0.5]
    if tied:
        yield Finding(
            "tie", "a tie", "plain", len(tied), len(rows), "rows",
            "`ties: drop` leaves out pairs without a majority; `ties: keep` shows them with p = 1/2.",
            [_example(row) for row in tied[:SHOWN]],
        )  # fmt: skip


def _by_pair(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    pairs: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        pairs[row.pair].append(row)
    return pairs


def _repeats(votes: Mapping[tuple[str, str, str], list[Row]], rows: int) -> Iterable[Finding]:
    """The same prompt and the same two files in more than one row."""
    repeated = [some for some in votes.values() if len(some) > 1]
    if not repeated:
        return
    yield Finding(
        "repeated_pair", "a pair in several rows", "plain", len(repeated), len(votes), "pairs",
        "Several people's votes, or a copy. `votes: merge` counts them as one pair with a share of votes.",
        [_examples(some) for some in repeated[:SHOWN]],
    )  # fmt: skip
    turned = [some for some in repeated if len({row.first for row in some}) > 1]
    if turned:
        yield Finding(
            "both_orders", "a pair in both orders", "plain", len(turned), len(votes), "pairs",
            "Harmless when votes are merged: the order is taken into account.",
            [_examples(some) for some in turned[:SHOWN]],
        )  # fmt: skip
    split = [some for some in repeated if _disagree(some)]
    if split:
        yield Finding(
            "contradictory_votes", "a pair whose votes contradict each other", "doubtful", len(split), len(votes),
            "pairs", "`votes: separate` trains on both directions; merged, the share says how divided people were.",
            [_examples(some) for some in split[:SHOWN]],
        )  # fmt: skip


def _disagree(rows: Sequence[Row]) -> bool:
    winners = {_winner(row) for row in rows if row.share != 0.5}
    return len(winners) > 1


def _alike(rows: Sequence[Row], doubles: Mapping[str, str]) -> Iterable[Finding]:
    """The same pictures in other bytes."""
    if not doubles:
        return

    def seen_as(name: str) -> str:
        return doubles.get(name, name)

    within = [row for row in rows if seen_as(row.first) == seen_as(row.second)]
    if within:
        yield Finding(
            "lookalikes", "a pair of images that look the same", "doubtful", len(within), len(rows), "rows",
            "Their bytes differ, their pictures hardly do: the label can only be chance.",
            [_example(row) for row in within[:SHOWN]],
        )  # fmt: skip
    grouped: dict[tuple[str, ...], dict[tuple[str, str, str], list[Row]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in rows:
        if seen_as(row.first) != seen_as(row.second):
            key = (row.caption, *sorted((seen_as(row.first), seen_as(row.second))))
            grouped[key][row.pair].append(row)
    copies = [group for group in grouped.values() if len(group) > 1]
    if not copies:
        return
    yield Finding(
        "re_encoded_pair", "a pair again, with its images encoded anew", "doubtful", len(copies), len(grouped), "pairs",
        "Counted as different pairs, since their bytes differ: votes aren't merged, and copies may end up on both "
        "sides of a split.",
        [_side_by_side(group) for group in copies[:SHOWN]],
    )  # fmt: skip
    against = [
        group for group in copies
        if len({seen_as(_winner(row)) for some in group.values() for row in some if row.share != 0.5}) > 1
    ]  # fmt: skip
    if against:
        yield Finding(
            "re_encoded_contradiction", "encoded anew, with the opposite label", "doubtful", len(against), len(grouped),
            "pairs", "Training would push both ways: merging can't see that it is the same pair.",
            [_side_by_side(group) for group in against[:SHOWN]],
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------ pictures


def _sizes(rows: Sequence[Row], book: Book, expected: Expected) -> Iterable[Finding]:
    first_row: dict[str, Row] = {}
    for row in rows:
        for name in (row.first, row.second):
            if name in book.looks:
                first_row.setdefault(name, row)
    side = expected.resolution

    def shown(names: Sequence[str]) -> list[Example]:
        return [
            Example(first_row[name].where, first_row[name].caption, (name,), _size(book, name))
            for name in names[:SHOWN]
        ]

    if side is not None:
        small = [name for name in first_row if min(book.looks[name].width, book.looks[name].height) < side]
        if small:
            yield Finding(
                "upscaled", f"an image smaller than the {side} pixels of the model", "doubtful", len(small),
                len(first_row), "images", "It is enlarged, and the model learns from its blur.", shown(small),
            )  # fmt: skip
    cut = [name for name in first_row if _loss(book, name) > CROP]
    if cut:
        yield Finding(
            "crop_loss", f"an image that loses more than {CROP:.0%} to the square crop", "doubtful", len(cut),
            len(first_row), "images",
            "People judged the whole picture; the model is shown its middle.", shown(cut),
        )  # fmt: skip
    unlike = [
        row for row in rows
        if row.first in book.looks and row.second in book.looks and _unlike(book, row.first, row.second)
    ]  # fmt: skip
    if unlike:
        yield Finding(
            "unequal_sizes", "a pair of images with different sizes or shapes", "doubtful", len(unlike), len(rows),
            "rows", "Size or shape may have decided the vote, and the two lose different parts to the crop.",
            [_example(row, f"{_size(book, row.first)} and {_size(book, row.second)}") for row in unlike[:SHOWN]],
        )  # fmt: skip


def _loss(book: Book, name: str) -> float:
    look = book.looks[name]
    return 1 - min(look.width, look.height) / max(look.width, look.height)


def _unlike(book: Book, first: str, second: str) -> bool:
    one, two = book.looks[first], book.looks[second]
    return (one.width, one.height) != (two.width, two.height)


def _size(book: Book, name: str) -> str:
    return f"{book.looks[name].width}×{book.looks[name].height}"


# ------------------------------------------------------------------------------------------------ prompts


def _lengths(prompts: Sequence[str], expected: Expected) -> list[int]:
    if expected.tokens is not None:
        return list(expected.tokens(prompts))
    return [len(prompt.split()) for prompt in prompts]


def _long(rows: Sequence[Row], lengths: Sequence[int], expected: Expected) -> Iterable[Finding]:
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


def _leaks(rows: Sequence[Row], prompts: Sequence[str], expected: Expected) -> Iterable[Finding]:
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
                f"{concerned:,} training rows: a win on these prompts may be memory. Case, punctuation and spaces were "
                "set aside.",
                [_example(row) for row in list(first.values())[:SHOWN]],
            )  # fmt: skip


# ------------------------------------------------------------------------------------------------ numbers


def _noise(votes: Mapping[tuple[str, str, str], list[Row]]) -> dict[str, Any]:
    """How often one person's vote is wrong, if everybody errs equally often on every pair: two votes on a pair then
    disagree with probability d = 2 e (1 - e)."""
    weights = disagreements = 0.0
    pairs = 0
    for some in votes.values():
        decided = [row for row in some if row.votes > 1 or row.share != 0.5]  # a tie is no vote for either
        n = sum(row.votes for row in decided)
        if n < 2:
            continue
        k = _for(decided, some[0].first)
        pairs += 1
        weights += n
        disagreements += 2 * k * (n - k) / (n - 1)  # n times the share of its pairs of votes that disagree
    if not pairs:
        return {"pairs": 0, "disagreement": None, "error": None}
    d = min(disagreements / weights, 1.0)
    error = (1 - math.sqrt(1 - 2 * d)) / 2 if d <= 0.5 else 0.5
    return {"pairs": pairs, "disagreement": d, "error": error}


def _charts(
    votes: Mapping[tuple[str, str, str], list[Row]],
    images: Iterable[str],
    book: Book,
    lengths: Sequence[int],
    expected: Expected,
) -> dict[str, list[tuple[str, int]]]:
    charts: dict[str, list[tuple[str, int]]] = {}
    counted = Counter(sum(row.votes for row in some) for some in votes.values())
    charts["votes a pair"] = _few([(str(n), counted[n]) for n in sorted(counted)])
    sizes = Counter(_size(book, name) for name in images if name in book.looks)
    if sizes:
        charts["image sizes"] = _few(sizes.most_common())
    if lengths:
        step = max(1, -(-max(lengths) // 12))
        buckets = Counter(length // step for length in lengths)
        name = "prompt length in tokens" if expected.tokens is not None else "prompt length in words"
        charts[name] = [
            (f"{b * step}" if step == 1 else f"{b * step}-{(b + 1) * step - 1}", buckets[b])
            for b in range(max(buckets) + 1)
        ]
    return charts


def _few(bars: list[tuple[str, int]], most: int = 10) -> list[tuple[str, int]]:
    rest = sum(count for _, count in bars[most:])
    return [*bars[:most], *([("others", rest)] if rest else [])]


# ------------------------------------------------------------------------------------------------ examples


def _winner(row: Row) -> str:
    return row.second if row.share is not None and row.share < 0.5 else row.first


def _for(rows: Iterable[Row], image: str) -> float:
    """Votes for an image, of rows that all show it."""
    shares = ((row.share if row.first == image else 1 - (row.share or 0.0), row.votes) for row in rows)
    return sum((share or 0.0) * votes for share, votes in shares)


def _example(row: Row, note: str = "") -> Example:
    images = (row.second, row.first) if _winner(row) == row.second else (row.first, row.second)
    preferred = row.share is not None and row.share != 0.5
    return Example(row.where, row.caption, tuple(name for name in images if name), note, preferred)


def _examples(rows: Sequence[Row]) -> Example:
    """Several rows on one pair."""
    n = sum(row.votes for row in rows)
    first = rows[0].first
    k = _for(rows, first)
    images = (first, rows[0].second) if k >= n - k else (rows[0].second, first)
    note = f"{max(k, n - k):g} : {min(k, n - k):g} votes in {len(rows)} rows"
    where = "; ".join(row.where for row in rows[:4])
    return Example(where, rows[0].caption, images, note, preferred=2 * k != n)


def _side_by_side(group: Mapping[tuple[str, str, str], Sequence[Row]]) -> Example:
    rows = [some[0] for some in group.values()]
    images = [name for row in rows[:2] for name in _example(row).images]
    note = "each row's preferred image comes first"
    return Example("; ".join(row.where for row in rows[:4]), rows[0].caption, tuple(images), note)
