"""Write docs/approximate.md from what approximate.py found: the table, and sentences that follow from it.

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

Inversion is most of what SmPO costs: of some 34 forwards a pair at ten steps, 26 walk up the model's path. Four settings
spend fewer of them and find *nearly* the same noise. They change results, so they are part of a spec's
identity, and none is on by default.

* `inversion.skip_first: true` leaves out the hop to level 1, which hardly moves anything.
* `inversion.reuse_last: true` begins each hop with the last prediction of the hop before: k + 1 passes for k hops with one
  correction, instead of 2k. That prediction was made near by, at the other hop's time.
* `inversion.by: reference` follows the frozen reference. That saves nothing by itself, but what it finds stays true, and what
  the reference says there too: with `runtime.reuse_inversions`, runs over the same pairs (trials of a sweep) ask only the
  policy, six forwards a pair, on one type of machine bit for bit the run that asks everybody.
"""


def span(one: dict[str, Any] | None) -> str:
    if one is None:
        return "–"
    rate = one["win_rate"]
    return f"{100 * rate['value']:.1f} [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"


def gain(one: dict[str, Any] | None, digits: int = 4) -> str:
    if one is None:
        return "–"
    found = one["gain"]
    return f"{found['value']:+.{digits}f} [{found['low']:+.{digits}f}, {found['high']:+.{digits}f}]"


def table(modes: dict[str, Any], judge: str) -> list[str]:
    rows = [
        "| mode | forwards a pair | CPU s | gain on the base | wins over exact, equal updates, % | gain over exact | updates at "
        "equal forwards | wins over exact, equal forwards, % | gain over exact |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, mode in modes.items():
        at, after = mode["updates"], mode["compute"]
        cpu = "" if at["cpu_seconds"] is None else f"{at['cpu_seconds']:.1f}"
        over, later = at[judge].get("over_exact"), after[judge].get("over_exact")
        rows.append(
            f"| {name} | {at['forwards_per_pair']:.1f} | {cpu} | {gain(at[judge]['over_base'], 3)} | {span(over)} | "
            f"{gain(over)} | {after['updates']:.0f} | {span(later)} | {gain(later)} |"
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

`experiments/plane_smpo.yaml`, inverting by the policy: {updates} updates of {batch} pairs, {seeds} seeds, {starts:,} untouched
starts, guidance 3. **Exact** is ReNoise as it comes. *Wins* is the share of starts at which a mode's sample scores higher than
that of the exact mode after its {updates} updates, by `plane-radius`, which made the labels: once after as many **updates**, once
after as many network **forwards** (more updates, then). Below, the same by `plane-on-axis`, the gauge of damage. Intervals are 95 %
over starts and seeds. CPU seconds are of training up to there.
"""

SHAPES = """## On pictures

`experiments/quickstart.yaml` at a constant rate, inverting by the policy on 12 quadratic steps: {updates} updates of {batch}
pairs, {seeds} seeds, {starts:,} pictures of untouched prompts, guidance 2. The same columns, first by `shapes-judge`, which has never seen a
label, then by `shapes-reward`, which smoothed the labels. More arms at equal updates: [inversion on
images](inversion-on-images.md#approximations).
"""

REMOVED = ("fp8", "stale")
"""Modes of the result files that smpo no longer has."""

WORLDS = {
    "plane": (
        PLANE,
        ("plane-radius", "plane-on-axis"),
        "At equal forwards a cheaper mode has made more updates and gone further from the base, so that most of what it wins "
        "there is length, not quality: read both columns, and the gauge.",
    ),
    "shapes": (
        SHAPES,
        ("shapes-judge", "shapes-reward"),
        "`reference` and `cached` are the losers: by the judge that has never seen a label they end "
        "below the base with one seed of three, and five hundred cached updates ruin the pictures while the reward that "
        "smoothed the labels hardly notices.",
    ),
}


def section(name: str, body: dict[str, Any]) -> list[str]:
    intro, judges, note = WORLDS[name]
    modes = {mode: found for mode, found in body["modes"].items() if mode not in REMOVED}
    machine = body["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    told = {key: body[key] for key in ("updates", "batch", "seeds", "starts")}
    lines = [
        intro.format(**told),
        *(f"* **{name}**: {mode['about']}" for name, mode in modes.items()),
        "",
    ]
    for judge in judges:
        lines += [f"By `{judge}`:", "", *table(modes, judge), ""]
    return [
        *lines,
        "What the intervals of the win rate say, against exact:",
        "",
        *(
            f"* by `{judge}` at equal {word}: {verdict(modes, judge, point)}."
            for judge in judges
            for point, word in (("updates", "updates"), ("compute", "forwards"))
        ),
        "",
        note.format(**told),
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
    parser.add_argument(
        "--check", action="store_true", help="write nothing; end with 1 when the page is stale"
    )
    text = page()
    if parser.parse_args().check:
        raise SystemExit(not PAGE.exists() or PAGE.read_text() != text)
    PAGE.write_text(text)
