"""Data in other people's formats. All become the same table: votes merged, defects dropped and listed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from smpo.components.datasets import ParquetData, PlacedData
from smpo.errors import MachineError, SpecError
from smpo.registry.component import register

if TYPE_CHECKING:
    from smpo.data.sources.formats import Interpret
    from smpo.data.sources.records import FolderPairs
    from smpo.data.sources.source import Source

__all__ = ["ChosenRejected", "Columns", "HPDv2", "HPDv3", "ImageFolder", "ImageRewardDB", "WebDataset"]


class Columns(BaseModel):
    """Which column is which."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    prompt: str = "prompt"
    """The words that both images were made for."""
    chosen: str = "chosen"
    """The preferred image (or simply the first, where votes are counted)."""
    rejected: str = "rejected"
    """The other one."""
    share: str | None = None
    """Share of the votes for the first image; null: the chosen one has them all."""
    votes: str | None = None
    """How many votes there were."""
    for_chosen: str | None = None
    """How many votes the first image got; with `for_rejected`, instead of `share`."""
    for_rejected: str | None = None
    """How many votes the second image got."""

    @model_validator(mode="after")
    def _one_way(self) -> Columns:
        if (self.for_chosen is None) != (self.for_rejected is None):
            raise SpecError("for_rejected", "`for_chosen` and `for_rejected` go together", related=["for_chosen"])
        if self.for_chosen is not None and (self.share or self.votes):
            raise SpecError("share", "votes are either counted or shared", related=["for_chosen"])
        if self.votes is not None and self.share is None:
            raise SpecError("votes", "how many voted says nothing without `share`")
        return self

    def state(self) -> Any:
        from smpo.data.sources.formats import Chosen

        return Chosen(self.share, self.votes, self.for_chosen, self.for_rejected)


class TarColumns(Columns):
    """What a file's name ends with, after its first dot."""

    prompt: str = "txt"
    """A text file, or a name inside the sample's JSON: `json:prompt`."""


class FileColumns(Columns):
    """Which entry of a record is which."""

    chosen: str = "chosen_file_name"
    """Path of the preferred image."""
    rejected: str = "rejected_file_name"
    """Path of the other one."""


class _Annotated(PlacedData):
    """Records in one file, images in a folder."""

    annotations: str = "train.json"
    """The file of records within `path`: .json, .jsonl or .parquet."""
    images: str = "."
    """The folder within `path` from which the records' paths count."""

    def _pairs(
        self, interpret: Interpret, layouts: Sequence[Sequence[str]], rules: str, regroup: Any = None
    ) -> FolderPairs:
        from smpo.data.sources.records import FolderPairs

        place = Path(self.place())
        file = place / self.annotations
        if not file.is_file():
            names = sorted(one.name for one in place.glob("*.[jp]*") if one.is_file())
            raise MachineError(
                f"there is no file `{self.annotations}` in {place}",
                help=f"name it in `data.annotations`; here are {', '.join(names[:6]) or 'no such files'}",
            )
        if not (place / self.images).is_dir():
            raise MachineError(
                f"there is no folder `{self.images}` in {place}",
                help="name it in `data.images`: the folder from which the records' paths count",
            )
        return FolderPairs(
            [file],
            place / self.images,
            interpret=interpret,
            layouts=layouts,
            rules=rules,
            regroup=regroup,
        )


@register
class ChosenRejected(ParquetData):
    """Parquet with a prompt, a chosen and a rejected image, as `datasets` writes them ({bytes, path} or plain bytes).

    `columns` maps smpo's names to the table's; votes or shares of votes are used where there are some.
    """

    use: Literal["chosen-rejected"] = "chosen-rejected"
    version: ClassVar[int] = 1

    columns: Columns = Field(default_factory=Columns)
    """What the columns are called."""

    def source(self) -> Source:
        from smpo.data.sources.pickapic import ParquetPairs

        named, state = self.columns, self.columns.state()
        return ParquetPairs(
            self.place(),
            prompt=named.prompt,
            images=(named.chosen, named.rejected),
            needed=state.needed,
            optional=(),
            state=state,
            rules=f"chosen-rejected {state}",
            split=self.split,
        )

    def required(self) -> Sequence[str]:
        return self.columns.prompt, self.columns.chosen, self.columns.rejected


@register
class ImageFolder(_Annotated):
    """A folder of images with `metadata.jsonl`: a record for a pair, naming both files, or for an image with its rank.

    With `rank`, images of one `group` are compared: `file` is the image's path, smaller ranks are better.
    """

    use: Literal["imagefolder"] = "imagefolder"
    version: ClassVar[int] = 1

    annotations: str = "metadata.jsonl"
    """The file of records within `path`: .json, .jsonl or .parquet."""
    columns: FileColumns = Field(default_factory=FileColumns)
    """What the entries of a record are called."""
    rank: str | None = None
    """Entry with the rank of a single image; null: each record is a pair."""
    file: str = "file_name"
    """Entry with the path of a single image."""
    group: str | None = None
    """Entry that images to be compared share; null takes the prompt."""
    pairs: Literal["all", "neighbours", "extremes"] = "all"
    """Of ranked images: each with each, each with the next worse ones, or the best with the worst."""

    def source(self) -> Source:
        from smpo.data.sources.formats import Shown, grouped, rankings

        named, state = self.columns, self.columns.state()
        if self.rank is not None:
            group = self.group or named.prompt
            regroup = partial(grouped, group=group, prompt=named.prompt, image=self.file, rank=self.rank)
            rules = f"imagefolder {group} {named.prompt} {self.file} {self.rank} {self.pairs}"
            layout = (named.prompt, self.file, self.rank, group)
            return self._pairs(partial(rankings, which=self.pairs), [layout], rules, regroup)

        def interpret(record: Mapping[str, Any]) -> Iterator[Shown]:
            images = (str(record.get(named.chosen) or ""), str(record.get(named.rejected) or ""))
            yield Shown(record.get(named.prompt), images, state(record))

        layout = (named.prompt, named.chosen, named.rejected, *state.needed)
        return self._pairs(interpret, [layout], f"imagefolder {named!r}")


@register
class HPDv2(_Annotated):
    """HPDv2: `train.json` with two images a record, or `test.json` with several, ranked by several people.

    Wu et al. 2023 (arXiv:2306.09341). Of ranked images every two become a pair; its votes are those of the annotators.
    """

    use: Literal["hpdv2"] = "hpdv2"
    version: ClassVar[int] = 1

    images: str = "train"
    """The folder within `path` from which the records' paths count."""

    def source(self) -> Source:
        from smpo.data.sources.formats import hpdv2

        layouts = [("prompt", "file_path", "human_preference"), ("prompt", "image_path")]
        return self._pairs(hpdv2, layouts, "hpdv2")


@register
class HPDv3(_Annotated):
    """HPDv3: two images a record; `choice_dist` counts the votes for each, so that `smoothing: votes` can use them.

    Ma et al. 2025. Without counts the preferred image has the only vote.
    """

    use: Literal["hpdv3"] = "hpdv3"
    version: ClassVar[int] = 1

    min_confidence: float | None = Field(None, ge=0, le=1)
    """Leave out records with less confidence, or none; HPSv3 was trained with 0.95."""

    def source(self) -> Source:
        from smpo.data.sources.formats import hpdv3

        interpret = partial(hpdv3, min_confidence=self.min_confidence)
        return self._pairs(interpret, [("prompt", "path1", "path2")], f"hpdv3 {self.min_confidence}")


@register
class ImageRewardDB(_Annotated):
    """ImageRewardDB: four to nine images a prompt, ranked; `pairs` selects the two that are compared.

    Xu et al. 2023 (arXiv:2304.05977). Records are rankings (`prompt`, `generations`, `ranking`), or single images
    (`prompt_id`, `prompt`, `image_path`, `rank`) as in its metadata; smaller ranks are better, equal ones are ties.
    """

    use: Literal["imagereward"] = "imagereward"
    version: ClassVar[int] = 1

    pairs: Literal["all", "neighbours", "extremes"] = "all"
    """Each with each, each with the next worse ones, or the best with the worst."""

    def source(self) -> Source:
        from smpo.data.sources.formats import rankings

        layouts = [("prompt", "generations", "ranking"), ("prompt_id", "prompt", "image_path", "rank")]
        return self._pairs(partial(rankings, which=self.pairs), layouts, f"imagereward {self.pairs}", _as_rankings)


def _as_rankings(records: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Single images are gathered by their prompt's id."""
    from smpo.data.sources.formats import grouped

    records = iter(records)
    first = list(islice(records, 1))
    everything = chain(first, records)
    if first and "generations" not in first[0]:
        return grouped(everything, group="prompt_id", prompt="prompt", image="image_path", rank="rank")
    return everything


@register
class WebDataset(PlacedData):
    """Tars in the WebDataset layout: `0001.chosen.jpg`, `0001.rejected.jpg`, `0001.txt` or `0001.json` are one pair.

    Images are read where they lie in the archive; nothing is unpacked. Compressed tars must be unpacked to .tar first.
    """

    use: Literal["webdataset"] = "webdataset"
    version: ClassVar[int] = 1
    patterns: ClassVar[tuple[str, ...]] = ("*.tar",)
    streamed: ClassVar[bool] = True

    columns: TarColumns = Field(default_factory=TarColumns)
    """What the names of a sample's files end with."""

    def source(self) -> Source:
        from smpo.data.sources.webdataset import TarPairs

        named = self.columns
        return TarPairs(
            self.place(), prompt=named.prompt, first=named.chosen, second=named.rejected, state=named.state()
        )
