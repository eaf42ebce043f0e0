"""How the published data sets say which picture people preferred: a record in, statements about two pictures out.

A record is a row of JSON, JSON lines or a table; pictures are named by their paths. Nothing here opens a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from smpo.data.sources.source import Stated, of_labels, of_votes

__all__ = [
    "Chosen", "Interpret", "Shown", "Which", "grouped", "hpdv2", "hpdv3", "of_ranking", "rankings",
]  # fmt: skip

Which = Literal["all", "neighbours", "extremes"]
"""Which pairs of a ranking: each with each, each with the next worse ones, or the best with the worst."""


@dataclass(frozen=True)
class Shown:
    """Two pictures, by their paths, and what is stated about them."""

    prompt: Any
    images: tuple[str, str]
    stated: Stated


Interpret = Callable[[Mapping[str, Any]], Iterable[Shown]]


@dataclass(frozen=True)
class Chosen:
    """Columns of a set whose first picture is the chosen one. `share` is a column with the share of votes for it,
    `votes` with how many there were; `for_first` and `for_second` are columns that count votes instead."""

    share: str | None = None
    votes: str | None = None
    for_first: str | None = None
    for_second: str | None = None

    @property
    def needed(self) -> tuple[str, ...]:
        named = (self.share, self.votes, self.for_first, self.for_second)
        return tuple(name for name in named if name is not None)

    def __call__(self, values: Mapping[str, Any]) -> Stated:
        if self.for_first is not None and self.for_second is not None:
            return of_votes(values.get(self.for_first), values.get(self.for_second))
        if self.share is None:
            return Stated(1.0)
        share = values.get(self.share)
        told = of_labels(share, 1 - share if isinstance(share, int | float) else None)
        if told.share is None or self.votes is None:
            return told
        votes = values.get(self.votes)
        if not isinstance(votes, int | float) or votes < 1 or votes != round(votes):
            return Stated(None, defect="no_label", detail=f"{votes} votes")
        return Stated(told.share, round(votes))


def hpdv2(record: Mapping[str, Any]) -> Iterator[Shown]:
    """HPDv2: `file_path` and `human_preference` of two images (train.json), or `image_path` and `rank` of several
    (test.json; 1 is best), with every annotator's ranking in `raw_annotations`."""
    prompt = record.get("prompt")
    if "human_preference" in record:
        paths, labels = _list(record, "file_path"), _list(record, "human_preference")
        if len(paths) != 2 or len(labels) != 2:
            yield _unusable(prompt, paths, f"{len(paths)} images, {len(labels)} labels")
            return
        yield Shown(prompt, (str(paths[0]), str(paths[1])), of_labels(*labels))
        return
    paths = _list(record, "image_path")
    ballots = [_list(one, "rank") for one in _list(record, "raw_annotations") if isinstance(one, Mapping)]
    ballots = [ranks for ranks in ballots if len(ranks) == len(paths)] or [_list(record, "rank")]
    if len(ballots[0]) != len(paths):
        yield _unusable(prompt, paths, f"{len(paths)} images, {len(ballots[0])} ranks")
        return
    for i, j in combinations(range(len(paths)), 2):
        better = sum(_better(ranks[i], ranks[j]) for ranks in ballots)
        yield Shown(prompt, (str(paths[i]), str(paths[j])), Stated(better / len(ballots), len(ballots)))


def hpdv3(record: Mapping[str, Any], min_confidence: float | None = None) -> Iterator[Shown]:
    """HPDv3: `path1` is the preferred image; `choice_dist` counts the votes for each, where it is known."""
    images = (str(record.get("path1") or ""), str(record.get("path2") or ""))
    counts, confidence = record.get("choice_dist"), record.get("confidence")
    if counts is None:
        stated = Stated(1.0)
    elif isinstance(counts, Sequence) and len(counts) == 2:
        stated = of_votes(*counts)
        if stated.share is not None and stated.share < 0.5:
            detail = f"choice_dist {list(counts)}, though path1 is the preferred one"
            stated = Stated(None, defect="contradictory_labels", detail=detail)
    else:
        stated = Stated(None, defect="no_label", detail=f"choice_dist {counts}"[:80])
    if min_confidence is not None and stated.share is not None and (confidence or 0.0) < min_confidence:
        stated = Stated(stated.share, stated.votes, "low_confidence", f"confidence {confidence}")
    yield Shown(record.get("prompt"), images, stated)


def rankings(record: Mapping[str, Any], which: Which = "all") -> Iterator[Shown]:
    """ImageReward's training files: `generations` (paths) and `ranking` (1 is best, equal numbers are ties)."""
    paths, ranks = _list(record, "generations"), _list(record, "ranking")
    if len(paths) != len(ranks) or len(paths) < 2:
        yield _unusable(record.get("prompt"), paths, f"{len(paths)} images, {len(ranks)} ranks")
        return
    for i, j, stated in of_ranking(ranks, which):
        yield Shown(record.get("prompt"), (str(paths[i]), str(paths[j])), stated)


def grouped(
    records: Iterable[Mapping[str, Any]], *, group: str, prompt: str, image: str, rank: str
) -> Iterator[dict[str, Any]]:
    """One image a row -> one ranking a record, in the order of first appearance."""
    found: dict[Any, dict[str, Any]] = {}
    for row in records:
        name = row.get(group)
        one = found.setdefault(name, {"prompt": row.get(prompt), "generations": [], "ranking": []})
        one["generations"].append(row.get(image) or "")
        one["ranking"].append(row.get(rank))
    yield from found.values()


def of_ranking(ranks: Sequence[Any], which: Which) -> Iterator[tuple[int, int, Stated]]:
    """Pairs of places in a ranking, and the label of each; smaller is better."""
    if any(isinstance(rank, bool) or not isinstance(rank, int | float) for rank in ranks):
        yield 0, 1, Stated(None, defect="no_label", detail=f"ranking {list(ranks)}"[:80])
        return
    levels = sorted(set(ranks))
    for i, j in combinations(range(len(ranks)), 2):
        low, high = sorted((levels.index(ranks[i]), levels.index(ranks[j])))
        near = high - low == 1
        far = low == 0 and high == len(levels) - 1 and high > low
        if which == "all" or (which == "neighbours" and near) or (which == "extremes" and far):
            yield i, j, Stated(_better(ranks[i], ranks[j]))


def _better(one: Any, other: Any) -> float:
    """1 when the first rank is the better (smaller) one, a half for equal ones."""
    return 0.5 if one == other else float(one < other)


def _list(record: Mapping[str, Any], name: str) -> list[Any]:
    value = record.get(name)
    return list(value) if isinstance(value, list | tuple) else []


def _unusable(prompt: Any, paths: Sequence[Any], detail: str) -> Shown:
    first, second = [*map(str, paths[:2]), "", ""][:2]
    return Shown(prompt, (first, second), Stated(None, defect="no_label", detail=detail))
