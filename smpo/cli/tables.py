"""Tables of results for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["judges_table"]


def judges_table(rows: Sequence[dict[str, str]]) -> object:
    """Rows that share their keys, as a table."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in rows[0] if rows else ():
        table.add_column(title, justify="left" if title == next(iter(rows[0])) else "right", header_style="dim")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row.values()))
    return table
