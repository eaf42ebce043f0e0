"""The plane's preference pairs: two base samples for one prompt, and annotators' votes on them.

The file is safetensors: `first`, `second` `[P, 2]` float32, `condition` `[P]` and `votes` `[P, 3]` (for the
first, for the second, for neither) uint8; its header has its parameters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from smpo.errors import MachineError, readable
from smpo.kinds import Pair
from smpo.worlds.plane.world import CONDITIONS

__all__ = ["PAIRS", "PlanePairs", "point_id", "read_plane_pairs"]

PAIRS = Path(__file__).parent / "weights" / "pairs.safetensors"
"""The pairs that come with smpo."""

Point = NDArray[np.float32]


def point_id(point: Point) -> str:
    """Content id: two equal points are one picture, whatever prompt they were drawn for."""
    return hashlib.sha256(np.ascontiguousarray(point, dtype="<f4").tobytes()).hexdigest()[:16]


class PlanePairs:
    """A `PairTable` in memory. See `read_plane_pairs`."""

    threads: ClassVar[bool] = True

    def __init__(self, pairs: Sequence[Pair], points: Mapping[str, Point], report: Mapping[str, Any]) -> None:
        self._pairs, self._points = tuple(pairs), points
        told = "".join(f"{pair}\n" for pair in self._pairs)
        self.digest = hashlib.sha256(told.encode()).hexdigest()
        self.report = report

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Pair:
        return self._pairs[index]

    def picture(self, image_id: str) -> Point:
        """The point `[2]`, float32, with this content id. Raises KeyError for an id of another table."""
        return self._points[image_id]


def read_plane_pairs(
    path: Path = PAIRS, *, ties: Literal["drop", "keep"] = "drop", limit: int | None = None, report: Path | None = None
) -> PlanePairs:
    """The table in a file of pairs; `limit` takes the first so many pairs that would be kept.

    Every vote is a row, as in Pick-a-Pic; a vote for neither counts half for each point. A pair is a
    tie when both points got equally much; it is dropped, or kept with share 0.5. Rows of dropped pairs are
    counted by reason in the table's report, and the pairs are listed in the file `report`. Raises
    MachineError when `path` isn't there.
    """
    if not path.is_file():
        raise MachineError(
            f"there are no pairs at {path}", help="in a checkout of smpo `python -m tools.make_plane` makes them"
        )
    table = _read(path)
    votes = table["votes"].astype(np.int64)  # [P, 3]
    rows = votes.sum(axis=1)
    tied = votes[:, 0] == votes[:, 1]
    reason = np.where(tied & (ties == "drop"), "tie", "").astype(object)
    if limit is not None:
        reason[np.flatnonzero(reason == "")[limit:]] = "over_limit"
    kept = reason == ""

    points: dict[str, Point] = {}
    pairs = [_pair(int(index), table, points) for index in np.flatnonzero(kept)]
    counts = {
        "rows": int(rows.sum()),
        "pairs": len(pairs),
        "votes": int(rows[kept].sum()),
        "ties": int(votes[:, 2].sum()),
        "tied_pairs": int(tied.sum()),
        "dropped": {str(why): int(rows[reason == why].sum()) for why in np.unique(reason[~kept])},
    }
    if report is not None:
        listed = [{"pair": _name(int(index)), "reason": str(reason[index])} for index in np.flatnonzero(~kept)]
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps({**counts, "dropped_pairs": listed}, indent=1))
    return PlanePairs(pairs, points, counts)


_COLUMNS = {"first": (2,), "second": (2,), "votes": (3,), "condition": ()}
"""The tensors of a file, and the shape of a row of each."""


def _read(path: Path) -> Mapping[str, NDArray[Any]]:
    """The table. Raises `MachineError` for a file that isn't one."""
    with readable("the plane's pairs", path):
        table: Mapping[str, NDArray[Any]] = load_file(path)
        if missing := sorted(_COLUMNS.keys() - table.keys()):
            raise MachineError(f"{path} holds no pairs of the plane: it has no {', '.join(missing)}")
        rows = len(table["condition"])
        wrong = [name for name, row in _COLUMNS.items() if table[name].shape != (rows, *row)]
        whole = all(np.issubdtype(table[name].dtype, np.integer) for name in ("votes", "condition"))
        if wrong or not whole or not np.isfinite([table["first"], table["second"]]).all():
            raise MachineError(f"{path} holds no pairs of the plane: its tensors have other shapes or values")
        votes, conditions = table["votes"].astype(np.int64), table["condition"]
        if not rows or votes.min() < 0 or votes.max() > 10**6 or votes.sum(axis=1).min() < 1:
            raise MachineError(f"{path} holds no pairs of the plane: its votes are none")
        if conditions.min() < 0 or conditions.max() >= len(CONDITIONS):
            raise MachineError(f"{path} holds no pairs of the plane: there are {len(CONDITIONS)} conditions")
    return table


def _name(index: int) -> str:
    return f"plane-{index:05d}"


def _pair(index: int, table: Mapping[str, NDArray[Any]], points: dict[str, Point]) -> Pair:
    """One row of the file as a `Pair`; its two points are entered into `points`."""
    ids = []
    for order in ("first", "second"):
        point = table[order][index]
        ids.append(point_id(point))
        points[ids[-1]] = point
    first, second, neither = (int(count) for count in table["votes"][index])
    if second > first:
        ids.reverse()
    asked = first + second + neither
    return Pair(
        id=_name(index),
        prompt=CONDITIONS[table["condition"][index]],
        winner=ids[0],
        loser=ids[1],
        share=(max(first, second) + neither / 2) / asked,
        votes=asked,
    )
