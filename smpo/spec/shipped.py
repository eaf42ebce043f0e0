"""Specs that come with smpo, and what stands for a spec on the command line and after `extends:`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["find_spec", "shipped_specs"]


def shipped_specs() -> dict[str, Path]:
    """The specs that come with smpo, by name: packed into the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_experiments", package.parent / "experiments"):
        if folder.is_dir():
            return {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    return {}


def find_spec(word: str, folder: Path = Path()) -> Path:
    """A file in `folder`, or a shipped spec by name (`quickstart`) or as in the docs (`experiments/quickstart.yaml`).

    A file goes first. Any other word is returned as a path, for which the reader of specs raises an error.
    """
    path = Path(word)
    if (folder / path).exists():
        return folder / path
    plain = path.suffix in {"", ".yaml"} and path.parent in {Path(), Path("experiments")}
    if plain and path.stem in (shipped := shipped_specs()):
        return shipped[path.stem]
    return folder / path
