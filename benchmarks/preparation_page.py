"""The section of docs/performance.md on scoring and encoding, from what preparation.py found."""

# ruff: noqa: E501 (prose of a page)

from __future__ import annotations

from typing import Any

__all__ = ["preparation"]

TEXT = """\
## Preparation

Threads (`runtime.workers`) decode and preprocess images ahead of the networks that score and encode them. Only pairs that training visits are
scored, unless the labels need all scores (`likelihood` without a range, `margin` with `standardise`, objectives of single
images). With `runtime.prepare: ahead` the first update waits for its own 2,048 visits; `first` prepares everything before it.
Neither changes a bit of a result.

`benchmarks/preparation.py`, commit {before} against this code, taking turns, empty caches. *Main thread* is the processor time of the
thread that runs the networks; *wall* was measured while other programs used the same two cores. In brackets: before / after, median, smallest and largest of the repeats.

| pairs | scores | wall, s | main thread, s |
|---|---|---|---|
{rows}

A JPEG of 1024 pixels takes one core {decode_ms:g} ms to decode, {preprocess_ms:g} ms to preprocess for a CLIP and {place_ms:g} ms to
resize for an encoder of 512 pixels; `smpo plan` uses these. {machine}; {versions}; seed {seed}.

### Rewards in 16 bits

`reward.precision: fp16` or `bf16`: the shapes world's reward over its {pairs} pairs, scores from {low:g} to {high:g}, against float32, and p by
likelihood smoothing:

| precision | score, rms | score, largest | p, rms | p, largest | pairs that change sides |
|---|---|---|---|---|---|
{half}

The default is float32 on every device, because scores make the labels. Caches keep precisions apart.
"""


def preparation(found: dict[str, Any]) -> str:
    """Before and after, what a picture takes, and what 16 bits do to scores."""
    rows = [
        f"| {name} | {one['before']['scores']:,.0f} → {one['after']['scores']:,.0f} | {_seconds(one, 'seconds')} | "
        f"{_seconds(one, 'main')} |"
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
