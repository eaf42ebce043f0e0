"""Data: recipes for tables of preference pairs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from smpo.components.locations import data_command, is_hub_id, is_url, locate, missing
from smpo.errors import MachineError, SmpoError
from smpo.kinds import PairData, PairTable, Runtime
from smpo.registry.component import register
from smpo.spec.identity import Neutral

if TYPE_CHECKING:
    from smpo.data.sources.source import Source

__all__ = ["AspectBuckets", "ParquetData", "PickAPic", "PlacedData", "PlanePairs", "VoteData"]


class AspectBuckets(BaseModel):
    """Which sizes there are for pictures that aren't square."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    aspect: float = Field(2.0, gt=1, le=4)
    """The longer side of the longest bucket, in shorter sides. SDXL was trained up to 4."""
    step: int = Field(64, ge=8, multiple_of=8)
    """Sides are multiples of so many pixels. 64 suits all published UNets."""


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
    buckets: Annotated[AspectBuckets | None, Neutral(None)] = None
    """Cut pairs to sizes near their shape instead of to squares; both images of a pair to one size, of about as many
    pixels as the square. `{}` takes the defaults."""

    @property
    def bucketed(self) -> bool:
        return self.buckets is not None

    def sizes(self, resolution: int) -> list[tuple[int, int]]:
        from smpo.data.stream.buckets import bucket_sizes

        if self.buckets is None:
            return super().sizes(resolution)
        return bucket_sizes(resolution, self.buckets.aspect, self.buckets.step)

    @abstractmethod
    def source(self) -> Source:
        """Where the rows are. Raises `MachineError` when they aren't here."""

    def load(self, runtime: Runtime, report: Path | None = None) -> PairTable:
        from smpo.data.pairs.table import read_pairs

        return read_pairs(
            self.source(),
            ties=self.ties,
            votes=self.votes,
            limit=self.limit,
            max_broken=self.max_broken,
            report=report,
            cache=runtime.cache,
        )


class PlacedData(VoteData):
    """Votes in files: on disk, shipped with smpo, or a data set on the hub."""

    path: str
    """File or folder; `smpo:...` ships with smpo; a hub id (owner/name) is fetched into the hub's cache.

    Parquet and tars are also read at an address: `hf://datasets/owner/name@revision/folder`, `s3://`, `gs://`, `https://`,
    with `{0000..0063}` to count out shards."""
    revision: str | None = None
    """Commit or tag on the hub; pin it."""

    patterns: ClassVar[tuple[str, ...]] = ("*",)
    """What is fetched of a data set on the hub."""

    streamed: ClassVar[bool] = False
    """Whether files are read at an address too."""

    @property
    def sequential(self) -> bool:
        return is_url(self.path)

    def place(self) -> Path | str:
        """Where the files lie, fetched if need be; an address stays one. Raises `MachineError`."""
        if is_url(self.path):
            if not self.streamed:
                raise MachineError(
                    f"`{self.use}` reads no addresses: its pictures are files of their own",
                    help="fetch the data, and give its folder",
                )
            return self.path
        if is_hub_id(self.path):
            from smpo.data.sources.hub import fetch_data

            return fetch_data(self.path, self.revision, self.patterns)
        return Path(locate(self.path))

    def check(self) -> str | None:
        trouble = self._trouble()
        return None if trouble is None else trouble.message

    def remedy(self) -> str:
        trouble = self._trouble()
        return super().remedy() if trouble is None or trouble.help is None else trouble.help

    def _trouble(self) -> SmpoError | None:
        """An error that a cheap check finds: no file is read whole, and no request goes to the network."""
        try:
            if is_url(self.path):
                from smpo.data.sources.remote import needed

                needed(str(self.place()))
            elif is_hub_id(self.path):
                message = missing(self.path, "datasets", revision=self.revision)
                command = data_command(self.path, self.revision)
                return MachineError(message, help=command + super().remedy()) if message else None
            else:
                if not Path(locate(self.path)).exists():
                    raise MachineError(f"there is no preference data at {locate(self.path)}")
                self.source().look()
        except SmpoError as error:
            return error
        return None


class ParquetData(PlacedData):
    """Votes in one parquet file, or in a folder of them."""

    patterns: ClassVar[tuple[str, ...]] = ("*.parquet",)
    streamed: ClassVar[bool] = True

    split: str | None = None
    """Which files of a folder: those called `train.parquet` or `train-00000-of-00645-….parquet`, for example."""

    @abstractmethod
    def required(self) -> Sequence[str]:
        """The columns without which a file is refused."""

    def size(self) -> int | None:
        from smpo.data.sources.parquet import count_rows

        if is_hub_id(self.path) or is_url(self.path):
            return None
        try:
            rows = count_rows(Path(locate(self.path)), self.split, self.required())
        except (SmpoError, OSError, ValueError):  # unknown here; `load` will say why
            return None
        return min(rows, self.limit) if self.limit else rows


@register
class PickAPic(ParquetData):
    """Preference pairs in the Pick-a-Pic v1 and v2 schema, from one parquet file or a folder of them.

    Columns: jpg_0, jpg_1 (encoded images), label_0, label_1 (1, 0, or 0.5 for a tie), caption; one row a vote.
    Pairs that can't be used are dropped as pairs, counted by reason and listed in the run's data report.
    """

    use: Literal["pickapic"] = "pickapic"
    version: ClassVar[int] = 1

    def source(self) -> Source:
        from smpo.data.sources.pickapic import pickapic_source

        return pickapic_source(self.place(), self.split)

    def required(self) -> Sequence[str]:
        from smpo.data.sources.parquet import REQUIRED

        return REQUIRED


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
