"""`smpo compare`: the page of a comparison, and votes that were cast on one as a preference data set."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from smpo.app.evaluate.compare import PreparedComparison
from smpo.errors import RunError
from smpo.evaluation.report.compare_page import Background, Shown, compare_page
from smpo.evaluation.sampling.slots import spread_numbers
from smpo.spec.leaves import leaves
from smpo.spec.read import read
from smpo.spec.source import Source
from smpo.spec.tree import plain
from smpo.tracking.jsonl import read_metrics

__all__ = ["convert_votes", "write_page"]

CURVES = (
    "train/loss", "train/implicit_accuracy", "train/margin", "train/gap/winner", "train/gap/loser", "train/grad_norm",
    "train/tau_squared", "holdout/accuracy", "holdout/margin", "holdout/gap/winner",
)  # fmt: skip
"""Metrics that are drawn, where a run has them."""

_COLUMNS = {
    "caption": str, "jpg_0": bytes, "jpg_1": bytes, "label_0": float, "label_1": float, "has_label": bool,
    "are_different": bool, "image_0_uid": str, "image_1_uid": str, "best_image_uid": str, "model_0": str,
    "model_1": str, "ranking_id": int, "user_id": int, "num_example_per_prompt": int, "created_at": str,
}  # fmt: skip


def write_page(held: PreparedComparison, file: Path, *, prompts: int, title: str = "") -> Path:
    """Write the page with pictures of so many prompts, taken evenly over the set."""
    chosen = set(spread_numbers(held.contest.prompts, prompts))
    shown = []
    for slot in held.slots:
        if slot.prompt in chosen and not slot.image:
            pictures = [p for model in held.contest.models if (p := held.picture(model, slot)) is not None]
            if len(pictures) == len(held.contest.models):
                shown.append(Shown(slot, pictures))
    runs = {model.name: model.run for model in held.models if model.run is not None}
    curves = {name: _curves(run.metrics) for name, run in runs.items()}
    settings = {name: _settings(run.resolved) for name, run in runs.items()}
    page = compare_page(held.contest, shown, Background(curves, settings), title=title)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")
    return file


def convert_votes(file: Path, to: Path) -> int:
    """Votes that a page let people download, as parquet in the schema of Pick-a-Pic v2. Returns how many.

    Raises `RunError` for a file that isn't one, naming the first row that is wrong.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        rows, kind = data["rows"], data["format"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise RunError(f"{file} can't be read as votes: {error}") from error
    if kind != "smpo-votes-1" or not isinstance(rows, list):
        raise RunError(f"{file} is not a file of votes", help="a page of `smpo compare` offers one for download")
    if not rows:
        raise RunError(f"{file} holds no votes")
    table = [_row(number, row) for number, row in enumerate(rows, 1)]
    types = {str: pa.string(), bytes: pa.binary(), float: pa.float64(), bool: pa.bool_(), int: pa.int64()}
    schema = pa.schema([(name, types[kind]) for name, kind in _COLUMNS.items()])
    to.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table, schema=schema), to)
    return len(table)


def _row(number: int, row: Any) -> dict[str, Any]:
    try:
        found = {name: row[name] for name in _COLUMNS}
        for side in ("jpg_0", "jpg_1"):
            found[side] = base64.b64decode(found[side], validate=True)
        found["label_0"], found["label_1"] = float(found["label_0"]), float(found["label_1"])
    except (LookupError, TypeError, ValueError, binascii.Error) as error:
        raise RunError(f"vote {number} is incomplete: {error}") from error
    if found["label_0"] not in (0.0, 0.5, 1.0) or found["label_0"] + found["label_1"] != 1.0:
        raise RunError(f"vote {number} has labels {found['label_0']:g} and {found['label_1']:g}")
    return found


def _curves(file: Path) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for point in read_metrics(file.parent):
        for name in CURVES:
            if name in point.values:
                curves.setdefault(name, []).append((point.step, point.values[name]))
    return curves


def _settings(file: Path) -> dict[str, Any]:
    """The leaves of a run's resolved spec, without blocks that can't change a result."""
    try:
        node = read(Source(file.name, file.read_text(encoding="utf-8"), file))
    except OSError:
        return {}
    data = plain(node) if node is not None else {}
    return leaves({k: value for k, value in data.items() if k not in ("runtime", "uses", "tags", "notes")})
