"""Write docs/inversion-on-images.md from what shapes_inversion.py found: tables, and sentences that follow from them.

python benchmarks/shapes_inversion_page.py            # write
python benchmarks/shapes_inversion_page.py --check    # 1 when the page isn't that of the results
"""

# ruff: noqa: E501 (prose of a page)

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

MARK = "<!-- Written by benchmarks/shapes_inversion_page.py; don't edit. -->\n"
INTRO = """# Inversion on images

Which inversion to choose on the shapes world, and why inverted noise gains less there than drawn noise. Each section changes one
setting of the quickstart (SmPO's loss, smoothed labels, {updates}) and compares its arms with the first one, paired by
training seed and prompt.

**Recommendation** (2026-11-25, this world only): 24 steps rather than 5 or 10, ReNoise rather than DDIM, `inversion: common`
where the gain counts, drawn noise (`inversion: none`) where time counts. Whether ten steps suffice for a base of SD 1.5's size
has not been measured; `train/tau_squared` (1 for true noise) shows it at the first update of any run.

1. **Discretisation error.** Coarser grids gain less at every size tried: five even steps end below the base, twelve quadratic
   steps gain four fifths of what twenty-four do. Without ReNoise's correction most of the gain at twelve steps is lost. The
   error of a coarse solver becomes part of the noise, and training fits it: the errors on winners and on losers both rise.
2. **Shared noise.** At 24 steps inverted noise is not told apart from drawn noise that the pair doesn't share. Sharing is worth as much as the
   lag that is left (.018, p .054): shared noise cancels in the margin. Shared inverted noise (`common`) is not told apart from
   shared drawn noise; it wins on fewer prompts than inverted noise per image (81 % against 91 %), and by more.
3. **The base.** Noise of 10 and 20 % on the base's weights leaves drawn noise unharmed (+.074, +.084) and lowers inverted noise
   from +.048 to +.040 and +.031: a path is as good as its network.
4. **Not the reason:** guidance of the inversion or of the evaluation, low timesteps (they hurt both alike), and, as far as three
   seeds resolve it, whose path is followed (along the reference gains vary greatly between seeds)."""

SHOWN = ("noise", "grid", "walk", "approximations")
"""Sections with a table; the others are lines of the list."""


def page(body: dict[str, Any]) -> str:
    factors = body["factors"]
    first = next(iter(factors.values()))["outcome"]
    steps = [one.split("=")[1] for one in body["sets"] if one.startswith("train.steps=")] or ["60"]
    updates = steps[-1]
    parts = [INTRO.format(updates=f"{updates} updates of 16 pairs")]
    parts.append(
        f"## What is resolved\n\n`{body['judge']}` judges, a formula that has never seen a label: {first['prompts']:,} untouched "
        f"prompts, guidance 2, {body['seeds']} training seeds. Resolved: p below 0.05 (Holm, within a section) and an interval (95 % "
        "over prompts and seeds) without zero.\n\n" + "\n".join(_resolved(factors, body["judge"]))
    )
    parts.append(
        "## Tables\n\n**gain** on the base; **over the first arm** of the section; **error**, the [distance from the "
        "base](evaluation.md#distance-from-the-base); **tau²**, the noise's mean square at the first update; **winners**, the change of "
        "the error on winners in the last quarter, relative to the reference's error before training; **passes** of the inversion "
        "a picture."
    )
    for name in SHOWN:
        if name in factors:
            parts.append(f"### {name[0].upper()}{name[1:]}\n\n{_table(factors[name], body['judge'])}")
    machine = body["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    parts.append(
        "`benchmarks/shapes_inversion.py` measures, `benchmarks/results/shapes_inversion.json` holds every figure by seed.\n"
        f"{machine['date']}, one CPU thread ({machine['platform']}), Python {machine['python']}, {versions};\n"
        f"shapes world `{body['world']}`."
    )
    return MARK + "\n\n".join(parts) + "\n"


def _resolved(factors: dict[str, Any], judge: str) -> list[str]:
    """A line a section: what is better, worse, or not told apart from its first arm."""
    lines = []
    for name, factor in factors.items():
        sorts: dict[str, list[str]] = {"better": [], "worse": [], "not told apart": []}
        control = factor["outcome"]["variants"][0]["name"]
        for variant in factor["outcome"]["variants"][1:]:
            found = _judged(variant, judge)
            against = found["against_variant"]["gain"]
            p = found["p_variant_holm"]
            sure = p is not None and p < 0.05 and not against["low"] <= 0 <= against["high"]
            word = "not told apart" if not sure else "better" if against["value"] > 0 else "worse"
            sorts[word].append(f"{variant['name']} ({against['value']:+.4f})")
        said = "; ".join(f"{word}: {', '.join(which)}" for word, which in sorts.items() if which)
        lines.append(f"* **{name}**, against {control}: {said}.")
    return lines


def _table(factor: dict[str, Any], judge: str) -> str:
    head = ["arm", "gain [95 %]", "over the first arm [95 %]", "p", "error", "tau²", "winners", "passes"]
    rows = [head, ["---"] * len(head)]
    for variant in factor["outcome"]["variants"]:
        found = _judged(variant, judge)
        watch = factor["watched"][variant["name"]]
        far = {one["name"]: one["mean"] for one in variant["drift"]}
        against, p = found["against_variant"], found["p_variant_holm"]
        rows.append(
            [
                variant["name"],
                _span(found["against_base"]["gain"], "+.4f"),
                _span(against["gain"], "+.4f") if against else "–",
                "–" if p is None else "<0.0001" if p < 1e-4 else f"{p:.2g}",
                f"{far.get('error', float('nan')):.2g}",
                f"{_mean(watch, 'tau_squared'):.2f}",
                f"{100 * _mean(watch, 'gap_winner') / _mean(watch, 'reference_error'):+.0f} %",
                f"{_mean(watch, 'passes_per_picture'):.1f}",
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _judged(variant: dict[str, Any], judge: str) -> dict[str, Any]:
    return next(one for one in variant["judges"] if one["judge"] == judge)


def _mean(watch: list[dict[str, float]], name: str) -> float:
    return sum(one[name] for one in watch) / len(watch)


def _span(estimate: dict[str, Any], form: str) -> str:
    value, low, high = (format(estimate[name], form) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "shapes_inversion.json")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "inversion-on-images.md")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = page(json.loads(options.results.read_text()))
    if options.check:
        return int(not options.page.exists() or options.page.read_text(encoding="utf-8") != text)
    options.page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
