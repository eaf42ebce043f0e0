"""`smpo compare`: models side by side in one HTML file; and its votes as training data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smpo.cli.output import out
from smpo.errors import RunError

__all__ = ["compare_command", "votes_command"]


def compare_command(
    words: Sequence[str],
    *,
    spec: str | None,
    sets: Sequence[str],
    runs: Path,
    file: Path,
    prompts: int,
    roots: Sequence[Path] | None,
    quiet: bool,
) -> None:
    from smpo.app.evaluate.page import write_page
    from smpo.cli.eval import held_contest

    if not words:
        raise RunError("compare what?", help="name runs or models: `smpo compare RUN RUN`")
    held = held_contest(words, spec=spec, sets=sets, runs=runs, roots=roots, quiet=quiet)
    page = write_page(held, file, prompts=prompts)
    size = page.stat().st_size / 2**20
    out().print(f"page       {page} ({size:.1f} MiB, complete in itself: open it in a browser)", soft_wrap=True)


def votes_command(votes: Path, to: Path | None) -> None:
    from smpo.app.evaluate.page import convert_votes

    target = to or votes.with_suffix(".parquet")
    count = convert_votes(votes, target)
    out().print(
        f"{count} votes in {target}; train on them with `data: {{use: pickapic, path: {target}}}`",
        soft_wrap=True,
        markup=False,
    )
