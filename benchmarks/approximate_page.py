"""Write docs/approximate.md from what approximate.py found: tables, and sentences that follow from them.

python benchmarks/approximate_page.py            # write
python benchmarks/approximate_page.py --check    # 1 when the page isn't that of the results
"""

# ruff: noqa: E501 (prose of a page)

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "approximate.md"

INTRO = """<!-- Written by benchmarks/approximate_page.py; don't edit. -->
# Approximate inversions

Inversion is most of the cost of SmPO: at ten steps, 26 of some 34 forwards a pair. Three settings save some of them and find
*nearly* the same noise. They change results, are part of the identity, and are off by default.

* `inversion.skip_first: true` leaves out the hop to level 1, which hardly moves anything.
* `inversion.reuse_last: true` starts each hop with the last prediction of the hop before: k + 1 passes for k hops with one
  correction, instead of 2k.
* `inversion.by: reference` with `runtime.reuse_inversions` caches inverted noise and the reference's outputs across runs over the
  same pairs, such as trials of a sweep: from the second run on, six forwards a pair. On one type of machine the result is bit for
  bit that of `by: reference` without a cache.

**Recommendation**: `reuse_last` gains as much or more per forward here, and is the one to try first. `by: reference` gains more in
the plane and ruins pictures; don't use it where pictures matter. Nothing was measured at SD 1.5's size.
"""


def gain(one: dict[str, Any] | None, digits: int = 4) -> str:
    if one is None:
        return "–"
    found = one["gain"]
    return f"{found['value']:+.{digits}f} [{found['low']:+.{digits}f}, {found['high']:+.{digits}f}]"


def table(modes: dict[str, Any], judge: str) -> list[str]:
    rows = [
        "| mode | forwards a pair | CPU s | gain on the base | over exact, equal updates | updates at equal forwards | over exact, "
        "equal forwards |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, mode in modes.items():
        at, after = mode["updates"], mode["compute"]
        cpu = "" if at["cpu_seconds"] is None else f"{at['cpu_seconds']:.1f}"
        rows.append(
            f"| {name} | {at['forwards_per_pair']:.1f} | {cpu} | {gain(at[judge]['over_base'], 3)} | "
            f"{gain(at[judge].get('over_exact'))} | {after['updates']:.0f} | {gain(after[judge].get('over_exact'))} |"
        )
    return rows


def verdict(modes: dict[str, Any], judge: str, point: str) -> str:
    """Which modes are better, worse or not told apart, by the interval of the win rate."""
    sorts: dict[str, list[str]] = {"better": [], "worse": [], "not told apart": []}
    for name, mode in modes.items():
        found = mode[point][judge].get("over_exact")
        if found is None:
            continue
        rate = found["win_rate"]
        word = "better" if rate["low"] > 0.5 else "worse" if rate["high"] < 0.5 else "not told apart"
        sorts[word].append(f"{name} ({100 * rate['value']:.1f} %)")
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in sorts.items() if names)


PLANE = """## In the plane

`experiments/plane_smpo.yaml`, inverting by the policy: {updates} updates of {batch} pairs, {seeds} seeds, {starts:,} untouched starts, guidance 3.
**exact** is ReNoise with one correction a hop; **cached** is `by: reference` from the second run on. Intervals are 95 % over starts and
seeds. `plane-radius` made the labels; `plane-on-axis` measures damage.
"""

SHAPES = """## On pictures

`experiments/quickstart.yaml` at a constant rate, inverting by the policy on 12 quadratic steps: {updates} updates of {batch} pairs, {seeds}
seeds, {starts:,} pictures of untouched prompts, guidance 2. `shapes-judge` has never seen a label; `shapes-reward` smoothed the labels.
"""

REMOVED = ("fp8", "stale")
"""Modes of the result files that smpo no longer has."""

WORLDS = {
    "plane": (
        PLANE,
        ("plane-radius", "plane-on-axis"),
        "At equal forwards a cheaper mode has made more updates and moved further from the base: most of what it wins there is "
        "length, not quality.",
    ),
    "shapes": (
        SHAPES,
        ("shapes-judge", "shapes-reward"),
        "With `reference` and `cached` one seed of three ends below the base by `shapes-judge`, and after five hundred cached updates "
        "the pictures are ruined, while `shapes-reward` hardly changes.",
    ),
}


def section(name: str, body: dict[str, Any]) -> list[str]:
    intro, judges, note = WORLDS[name]
    modes = {mode: found for mode, found in body["modes"].items() if mode not in REMOVED}
    machine = body["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    facts = {key: body[key] for key in ("updates", "batch", "seeds", "starts")}
    return [
        intro.format(**facts),
        f"By `{judges[0]}`:",
        "",
        *table(modes, judges[0]),
        "",
        "Against exact, by the interval of the win rate:",
        "",
        *(
            f"* `{judge}`, equal {word}: {verdict(modes, judge, point)}."
            for judge in judges
            for point, word in (("updates", "updates"), ("compute", "forwards"))
        ),
        "",
        note,
        "",
        f"`benchmarks/approximate.py --world {name}`; one CPU thread ({machine['platform']}), Python {machine['python']}, "
        f"{versions}; {machine['date']}.",
        "",
    ]


def page() -> str:
    lines = [INTRO]
    for name in WORLDS:
        lines += section(name, json.loads((HERE / "results" / f"approximate_{name}.json").read_text()))
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write docs/approximate.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when the page is stale")
    text = page()
    if parser.parse_args().check:
        raise SystemExit(not PAGE.exists() or PAGE.read_text() != text)
    PAGE.write_text(text)
