"""The section of docs/performance.md on scoring and encoding, from what preparation.py found."""

from __future__ import annotations

from typing import Any

__all__ = ["preparation"]

TEXT = """\
## Preparation

Threads (`runtime.workers`) decode and preprocess pictures ahead of the networks that score and encode them, and
only pairs that training visits are scored, unless a label needs the scores of all (`likelihood` without a range,
`margin` with `standardise`, objectives of single images). With `runtime.prepare: ahead` the first update waits for
its own 2,048 visits alone; `first` prepares everything before it. Neither changes a bit of a result. Between
portions the weights of a reward rest in the CPU's memory.

Threads rather than processes: Pillow and numpy release Python's lock while they decode and resize, and nothing is
pickled or forked. A portion is read in the order of the table, so that a row group of parquet is read once for each
portion; a data set at an address is one portion, lest it be fetched many times. Results wait in about half a
gigabyte of memory at most.

`benchmarks/preparation.py`, commit {before} against this code, taking turns, empty caches, one thread for the
networks. *Main thread* is processor time of the thread that runs the networks: what preparation takes where other
cores are free. *Wall* was measured while other programs used the same two cores. In brackets: the ratios before /
after of the repeats, median, smallest and largest.

| pairs | scores | wall, s | main thread, s | all threads, s |
|---|---|---|---|---|
{rows}

A JPEG of 1024 pixels takes one core {decode_ms:g} ms to decode, {preprocess_ms:g} ms to preprocess for a CLIP and
{place_ms:g} ms to place for an encoder of 512 pixels; `smpo plan` multiplies these. {machine}; {versions}; seed
{seed}.

### Rewards in 16 bits

`reward.precision: fp16` or `bf16`. The shapes world's reward over its {pairs} pairs, scores from {low:g} to
{high:g}, against float32, and p by likelihood smoothing with them:

| precision | score, rms | score, largest | p, rms | p, largest | pairs that change sides |
|---|---|---|---|---|---|
{half}

The default is float32 on every device: scores make the labels, so a spec would otherwise mean other labels on
another machine. Scores of two precisions are kept apart in the cache.
"""


def preparation(found: dict[str, Any]) -> str:
    """Before and after, what a picture takes, and what 16 bits do to scores."""
    rows = [
        f"| {name} | {one['before']['scores']:,.0f} → {one['after']['scores']:,.0f} | {_seconds(one, 'seconds')} | "
        f"{_seconds(one, 'main')} | {_seconds(one, 'cpu')} |"
        for name, one in found["cases"].items()
    ]
    moved = found["precision"]
    half = [
        f"| {name} | {moved[name]['score_rms']:.1e} | {moved[name]['score_largest']:.1e} | "
        f"{moved[name]['p_rms']:.1e} | {moved[name]['p_largest']:.1e} | {moved[name]['sides_changed']} |"
        for name in ("fp16", "bf16")
    ]
    low, high = moved["range"]
    return TEXT.format(
        before=found["before"],
        rows="\n".join(rows),
        half="\n".join(half),
        low=low,
        high=high,
        pairs=moved["pairs"],
        machine=found["machine"],
        versions=", ".join(f"{name} {version}" for name, version in found["versions"].items()),
        seed=found["seed"],
        **found["pictures"],
    )


def _seconds(one: dict[str, Any], key: str) -> str:
    ratio = one["ratio"][key]
    spread = f"{ratio['median']:.2f}, {ratio['least']:.2f} to {ratio['most']:.2f}"
    return f"{one['before'][key]:.1f} → {one['after'][key]:.1f} [{spread}]"
