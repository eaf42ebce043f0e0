"""Data: recipes for tables of preference pairs."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from smpo.components.locations import locate
from smpo.errors import MachineError, SmpoError
from smpo.kinds import PairData, PairTable, Runtime
from smpo.registry.component import register

if TYPE_CHECKING:
    from smpo.data.source import Source

__all__ = ["PickAPic", "PlanePairs", "VoteData"]


class VoteData(PairData):
    """What all sets of recorded votes have in common, whatever their format: which rows become pairs."""

    ties: Literal["drop", "keep"] = "drop"
    """Pairs without a majority: leave them out (the paper), or keep them with p = 1/2 before smoothing."""
    votes: Literal["merge", "separate"] = "merge"
    """Several votes on a pair: count them together, or train on each row by itself."""
    limit: int | None = Field(None, gt=0)
    """Use only so many pairs, the first in storage order."""
    max_broken: float = Field(0.2, ge=0, le=1)
    """Stop when more than this share of the rows can't be used."""

    @abstractmethod
    def source(self) -> Source:
        """Where the rows are. Raises `MachineError` when they aren't here."""

    def load(self, runtime: Runtime, report: Path | None = None) -> PairTable:
        from smpo.data.table import read_pairs

        return read_pairs(
            self.source(),
            ties=self.ties,
            votes=self.votes,
            limit=self.limit,
            max_broken=self.max_broken,
            report=report,
            cache=runtime.cache,
        )


@register
class PickAPic(VoteData):
    """Preference pairs in the Pick-a-Pic v2 schema, from one parquet file or a folder of them.

    Columns: jpg_0, jpg_1 (encoded images), label_0, label_1 (1, 0, or 0.5 for a tie), caption; one row a vote.
    Pairs that can't be used are dropped as pairs, counted by reason and listed in the run's data report.
    """

    use: Literal["pickapic"] = "pickapic"
    version: ClassVar[int] = 1

    path: str
    """Parquet file, or a folder of them; `smpo:...` ships with smpo."""
    split: str | None = None
    """Which files of a folder: those called `train.parquet` or `train-00000-of-00645-….parquet`, for example."""

    def source(self) -> Source:
        from smpo.data.pickapic import pickapic_source

        return pickapic_source(Path(locate(self.path)), self.split)

    def check(self) -> str | None:
        from smpo.data.parquet import find_files

        try:
            find_files(Path(locate(self.path)), self.split)
        except MachineError as error:
            return error.message
        return None

    def size(self) -> int | None:
        from smpo.data.parquet import count_rows

        try:
            rows = count_rows(Path(locate(self.path)), self.split)
        except (SmpoError, OSError, ValueError):  # unknown here; `load` will say why
            return None
        return min(rows, self.limit) if self.limit else rows


@register
class PlanePairs(PairData):
    """The plane world's pairs: two samples of the base each, votes by simulated annotators with several tastes."""

    use: Literal["plane-pairs"] = "plane-pairs"
    version: ClassVar[int] = 1

    path: str = "smpo:worlds/plane/weights/pairs.safetensors"
    """Where they are; `smpo:...` ships with smpo."""
    ties: Literal["drop", "keep"] = "drop"
    """Pairs without a majority."""
    limit: int | None = Field(None, gt=0)
    """Use only so many pairs."""

    def load(self, runtime: Runtime, report: Path | None = None) -> PairTable:
        from smpo.worlds.plane.pairs import read_plane_pairs

        return read_plane_pairs(Path(locate(self.path)), ties=self.ties, limit=self.limit, report=report)

    def check(self) -> str | None:
        return None if Path(locate(self.path)).is_file() else f"there is no file `{self.path}`"
