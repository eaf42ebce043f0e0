"""What scorers read of pictures, apart from the scorers: so that threads prepare it while a network computes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from smpo.data.prefetch import picture_of
from smpo.kinds import PairTable, Scorer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Inputs", "Prepare", "leaves", "prepare_for", "scores_of"]

Inputs = Mapping[str, Any]
"""Of one picture: by a scorer's key what its `preprocess` returned; under "" the picture, for scorers without one."""

Prepare = Callable[[str], Inputs]
"""An image's id -> its inputs. Pure, for any thread; holds no weights."""


def leaves(scorer: Scorer) -> list[Scorer]:
    """The scorer itself, or those that an ensemble is made of in the end."""
    parts: Sequence[Scorer] = getattr(scorer, "parts", ())
    return [leaf for part in parts for leaf in leaves(part)] if parts else [scorer]


def prepare_for(table: PairTable, scorer: Scorer, keys: Collection[str]) -> Prepare:
    """How an image's inputs are made, for the scorer or those members of an ensemble whose keys are given."""
    wanted = [leaf for leaf in leaves(scorer) if leaf.key in keys]
    found = {leaf.key: getattr(leaf, "preprocess", None) for leaf in wanted}
    steps = {key: preprocess for key, preprocess in found.items() if preprocess is not None}
    whole, read = len(steps) < len(found), picture_of(table)

    def prepare(image: str) -> Inputs:
        picture = read(image)
        inputs = {key: preprocess(picture) for key, preprocess in steps.items()}
        return {**inputs, "": picture} if whole else inputs

    return prepare


def scores_of(scorer: Scorer, inputs: Sequence[Inputs], prompts: Sequence[str]) -> Tensor:
    """`[N]`, of one scorer that is no ensemble."""
    if getattr(scorer, "preprocess", None) is None:
        return scorer([one[""] for one in inputs], prompts)
    found: Tensor = scorer.score([one[scorer.key] for one in inputs], prompts)  # type: ignore[attr-defined]
    return found
