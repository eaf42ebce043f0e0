"""Prompts as they were published: tables, and HPDv2's benchmark; in a file, a folder, or a data set on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from smpo.components.locations import is_hub_id, locate, missing, to_fetch
from smpo.errors import MachineError
from smpo.kinds import Prompt, PromptSet
from smpo.registry.component import register

__all__ = ["HPDv2Prompts", "PlacedPrompts", "Role", "TablePrompts"]

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
        return None if Path(locate(self.path)).exists() else f"there are no prompts at `{self.path}`"


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


def _prompts(rows: Sequence[tuple[str, str]], path: str) -> list[Prompt]:
    """Each text once in its category. One text in two categories is one cluster."""
    found = [Prompt(text, group=text, category=category) for text, category in dict.fromkeys(rows)]
    if not found:
        raise MachineError(f"`{path}` holds no prompts")
    return found
