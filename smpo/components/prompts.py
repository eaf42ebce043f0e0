"""Prompt sets: worlds, text files, tables and published benchmarks. Reported numbers come from `untouched` ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from smpo.components.locations import is_hub_id, locate, missing, to_fetch
from smpo.errors import MachineError
from smpo.kinds import Prompt, PromptSet
from smpo.registry.component import register
from smpo.spec.identity import Neutral

__all__ = [
    "HPDv2Prompts",
    "ParquetPrompts",
    "PlacedPrompts",
    "PlanePrompts",
    "Role",
    "ShapesPrompts",
    "TablePrompts",
    "TextPrompts",
]

Role = Literal["training", "tuning", "untouched"]
Style = Literal["anime", "concept-art", "paintings", "photo"]


class PlacedPrompts(PromptSet):
    """Prompts that lie somewhere: on disk, shipped with smpo, or in a data set on the hub."""

    path: str
    """File or folder; `smpo:...` ships with smpo; a hub id (owner/name) is fetched into the hub's cache."""
    revision: str | None = None
    """Commit or tag on the hub; pin it."""
    purpose: Role = "untouched"
    """What the set may be used for."""

    @property
    def role(self) -> Role:
        return self.purpose

    def place(self, patterns: Sequence[str]) -> Path:
        """Where the files lie here, fetched if need be. Raises `MachineError`."""
        if is_hub_id(self.path):
            from smpo.data.sources.hub import fetch_data

            return fetch_data(self.path, self.revision, patterns, setting="evaluate.prompts.path")
        return Path(locate(self.path))

    def is_local(self) -> bool:
        return not to_fetch(self.path, "datasets", revision=self.revision) and self.check() is None

    def check(self) -> str | None:
        if is_hub_id(self.path):
            return missing(self.path, "datasets", revision=self.revision)
        if not Path(locate(self.path)).exists():
            return f"there are no prompts at `{self.path}`"
        return unreadable(self)


@register
class TablePrompts(PlacedPrompts):
    """A column of a table: .csv and .tsv with a header, or .jsonl with an object a line.

    PartiPrompts, GenEval's metadata and DrawBench are published so; cards know their columns. A text that occurs again
    is left out.
    """

    use: Literal["table-prompts"] = "table-prompts"
    version: ClassVar[int] = 1

    file: str | None = None
    """The table inside a folder or data set; null where `path` is the table itself."""
    column: str = "prompt"
    """Which column holds the prompts."""
    category: str | None = None
    """Which column holds categories; win rates are shown for each. Null: none."""
    only: list[str] = Field(default_factory=list)
    """Categories that are used; empty means all."""

    def load(self) -> list[Prompt]:
        from smpo.data.sources.prompt_tables import read_table

        place = self.place([self.file] if self.file else ["*"])
        rows = read_table(place / self.file if self.file else place, self.column, self.category)
        if unknown := sorted(set(self.only) - {category for _, category in rows}):
            known = ", ".join(sorted({category for _, category in rows if category})) or "none"
            raise MachineError(
                f"`{self.path}` has no category `{unknown[0]}`",
                help=f"there are {known}: `evaluate.prompts.only`",
            )
        return _prompts([row for row in rows if not self.only or row[1] in self.only], self.path)


@register
class HPDv2Prompts(PlacedPrompts):
    """The benchmark of HPDv2: 800 prompts of each of four styles, which are the categories.

    Published as `benchmark/anime.json`, `concept-art.json`, `paintings.json` and `photo.json`, each a list of texts.
    Wu et al. 2023 (arXiv:2306.09341).
    """

    use: Literal["hpdv2-prompts"] = "hpdv2-prompts"
    version: ClassVar[int] = 1

    styles: list[Style] = Field(default=["anime", "concept-art", "paintings", "photo"], min_length=1)
    """Which of the four."""

    def load(self) -> list[Prompt]:
        from smpo.data.sources.prompt_tables import read_list

        place = self.place(["benchmark/*.json"])
        folder = place / "benchmark" if (place / "benchmark").is_dir() else place
        return _prompts(
            [(text, style) for style in self.styles for text in read_list(folder / f"{style}.json")],
            self.path,
        )


def unreadable(prompts: PromptSet) -> str | None:
    """Why the prompts can't be read, in a sentence: found before training, since they are read in a moment."""
    try:
        prompts.load()
    except MachineError as error:
        return error.message
    return None


def _prompts(rows: Sequence[tuple[str, str]], path: str) -> list[Prompt]:
    """Each text once in its category. One text in two categories is one cluster."""
    found = [Prompt(text, group=text, category=category) for text, category in dict.fromkeys(rows)]
    if not found:
        raise MachineError(f"`{path}` holds no prompts")
    return found


@register
class ShapesPrompts(PromptSet):
    """Captions of the shapes world. The splits share no combination of colour, shape and background."""

    use: Literal["shapes-prompts"] = "shapes-prompts"
    version: ClassVar[int] = 1

    split: Role = "untouched"
    """Which third of the world."""

    @property
    def role(self) -> Role:
        return self.split

    def load(self) -> list[Prompt]:
        from smpo.worlds.shapes.prompts import parse, prompts

        return [Prompt(text, group=" ".join(parse(text))) for text in prompts(self.split)]


@register
class PlanePrompts(PromptSet):
    """The plane world's eight conditions, each repeated; starts differ, so every repetition is a sample of its own."""

    use: Literal["plane-prompts"] = "plane-prompts"
    version: ClassVar[int] = 1

    repeats: int = Field(250, ge=1)
    """Samples a condition."""
    split: Role = "untouched"
    """A label that shifts the seeds: the world has no other conditions to hold out."""

    @property
    def role(self) -> Role:
        return self.split

    def load(self) -> list[Prompt]:
        from smpo.worlds.plane.world import CONDITIONS

        return [
            Prompt(name, group=f"{self.split} {name} {k}", category=name)
            for k in range(self.repeats)
            for name in CONDITIONS
        ]


@register
class TextPrompts(PromptSet):
    """A text file with one prompt a line; empty lines and lines that begin with # are left out."""

    use: Literal["text"] = "text"
    version: ClassVar[int] = 1

    path: str
    """The file; `smpo:...` ships with smpo."""
    purpose: Role = "untouched"
    """What the set may be used for."""

    @property
    def role(self) -> Role:
        return self.purpose

    def load(self) -> list[Prompt]:
        from smpo.data.sources.text_files import lines_of, read_text

        lines = lines_of(read_text(Path(locate(self.path))))
        found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not found:
            raise MachineError(f"`{self.path}` holds no prompts")
        return [Prompt(text, group=text) for text in dict.fromkeys(found)]

    def check(self) -> str | None:
        if not Path(locate(self.path)).is_file():
            return f"there is no file `{self.path}`"
        return unreadable(self)


@register
class ParquetPrompts(PromptSet):
    """The captions of parquet files, such as Pick-a-Pic's `validation_unique`: one prompt each, however many pairs."""

    use: Literal["parquet-prompts"] = "parquet-prompts"
    version: ClassVar[int] = 1

    path: str
    """File or folder; `smpo:...` ships with smpo; a hub id (owner/name) is fetched into the hub's cache."""
    column: str = "caption"
    """Which column holds the prompts."""
    purpose: Role = "untouched"
    """What the set may be used for."""
    split: Annotated[str | None, Neutral(None)] = None
    """Which files of a folder or data set: those called `test_unique-00000-of-00001-….parquet`, for example."""
    revision: Annotated[str | None, Neutral(None)] = None
    """Commit or tag on the hub; pin it."""

    @property
    def role(self) -> Role:
        return self.purpose

    def load(self) -> list[Prompt]:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table

        from smpo.data.sources.parquet import find_files

        place = Path(locate(self.path))
        if is_hub_id(self.path):
            from smpo.data.sources.hub import fetch_data

            wanted = f"*{self.split}*.parquet" if self.split else "*.parquet"
            patterns = [wanted, f"*{self.split}/*.parquet"]
            place = fetch_data(self.path, self.revision, patterns, setting="evaluate.prompts.path")
        captions: list[object] = []
        try:
            for file in find_files(place, self.split):
                captions += read_table(file, columns=[self.column])[self.column].to_pylist()
        except (OSError, KeyError, ValueError, ArrowException) as error:
            raise MachineError(
                f"the prompts in `{self.path}` (column `{self.column}`) can't be read: {error}",
                help="point `evaluate.prompts.path` at the files",
            ) from error
        texts = dict.fromkeys(str(c).strip() for c in captions if c and str(c).strip())
        if not texts:
            raise MachineError(f"`{self.path}` holds no prompts")
        return [Prompt(text, group=text) for text in texts]

    def is_local(self) -> bool:
        return not to_fetch(self.path, "datasets", revision=self.revision) and self.check() is None

    def check(self) -> str | None:
        if is_hub_id(self.path):
            return missing(self.path, "datasets", revision=self.revision)
        return None if Path(locate(self.path)).exists() else f"there is no file or folder `{self.path}`"
