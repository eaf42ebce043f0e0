"""Prompt sets. Numbers that are reported come from sets whose role is `untouched`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from smpo.components.locations import locate
from smpo.errors import MachineError
from smpo.kinds import Prompt, PromptSet
from smpo.registry.component import register

__all__ = ["ParquetPrompts", "PlanePrompts", "ShapesPrompts", "TextPrompts"]

Role = Literal["training", "tuning", "untouched"]


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
        place = Path(locate(self.path))
        try:
            lines = place.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise MachineError(f"the prompts in `{self.path}` can't be read: {error}") from error
        found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not found:
            raise MachineError(f"`{self.path}` holds no prompts")
        return [Prompt(text, group=text) for text in dict.fromkeys(found)]

    def check(self) -> str | None:
        return None if Path(locate(self.path)).is_file() else f"there is no file `{self.path}`"


@register
class ParquetPrompts(PromptSet):
    """The captions of a parquet file, such as Pick-a-Pic's `validation_unique`."""

    use: Literal["parquet-prompts"] = "parquet-prompts"
    version: ClassVar[int] = 1

    path: str
    """The file; `smpo:...` ships with smpo."""
    column: str = "caption"
    """Which column holds the prompts."""
    purpose: Role = "untouched"
    """What the set may be used for."""

    @property
    def role(self) -> Role:
        return self.purpose

    def load(self) -> list[Prompt]:
        from pyarrow.parquet import read_table

        try:
            captions = read_table(Path(locate(self.path)), columns=[self.column])[self.column].to_pylist()
        except (OSError, KeyError, ValueError) as error:
            raise MachineError(
                f"the prompts in `{self.path}` (column `{self.column}`) can't be read: {error}",
                help="point `evaluate.prompts.path` at the file",
            ) from error
        texts = dict.fromkeys(str(c).strip() for c in captions if c and str(c).strip())
        return [Prompt(text, group=text) for text in texts]

    def check(self) -> str | None:
        return None if Path(locate(self.path)).is_file() else f"there is no file `{self.path}`"
