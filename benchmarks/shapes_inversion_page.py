"""Write docs/inversion-on-images.md from what shapes_inversion.py found: tables, and sentences that follow from them.

python benchmarks/shapes_inversion_page.py            # write
python benchmarks/shapes_inversion_page.py --check    # 1 when the page isn't that of the results
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

MARK = "<!-- Written by benchmarks/shapes_inversion_page.py; don't edit. -->\n"
INTRO = """# Inversion on images

SmPO compares policy and reference on *inverted* noise: the noise that a picture came from, as the policy of the moment
sees it (or, cheaper, as the reference does). On the shapes world earlier runs with inversion gained no more than runs
with drawn noise, at more cost; along the reference they failed. Why? Each section
changes one thing about the quickstart (SmPO's loss, smoothed labels, {updates})
and leaves the rest; the arms of a section are compared with its first, paired by training seed and prompt.

{judge} judges: a formula that has never seen a label. {prompts} untouched prompts, guidance 2 unless said
otherwise, {seeds} training seeds. Intervals are 95 % over prompts *and* seeds; *p* is corrected by Holm within a
section (all judges). A step counts as resolved when p is below 0.05 and the interval leaves out zero.

Columns: **gain** on the base; **over the first arm**; **error** and **picture**, how far the policy went ([what
these are](evaluation.md#how-far-it-has-gone)); **tau²**, the mean square of the noise at the first update, 1 for
true noise; **surprise**, the reference's error on winners at that noise, before training; **winners**, how much
worse (+) or better (-) the policy denoises winners than the base in the last quarter, as a share of that surprise,
and **losers** the same; **held out**, the share of held-out pairs that it orders rightly on *drawn* noise;
**passes** of the inversion a picture."""


ANSWER = """## The answer, as far as these tables go

A person's reading of 2026-11-25; what is resolved and what isn't stands below it.

1. **Errors of the walk.** The coarser the grid, the less is gained, at every size tried and without exception:
   five even steps end below the base; twelve quadratic steps gain four fifths of what twenty-four do. Leaving
   out ReNoise's correction costs most of the gain that twelve steps have. What a coarse walk leaves in the
   noise isn't the picture's own noise but the solver's error, and training then fits that error: the loss asks
   for predictions of it on winners and losers alike, and both get worse by several times what there was.
2. **A noise for each image.** At 24 steps inverted noise isn't told apart from drawn noise *that the pair
   doesn't share*. Sharing is worth about as much as the whole lag that is left (.018, p .054), and inverted
   noise that is shared (`common`) isn't told apart from drawn noise that is shared. Shared noise cancels in the
   margin; two noises stay in it. `common` wins on fewer prompts than inverted noise apart (81 % against 91 %),
   and by more on those.
3. **The base.** Noise of 10 and 20 % on its weights leaves drawn noise unharmed (+.074, +.084) and takes
   inverted noise from +.048 to +.040 and +.031, where its lag is resolved each time: a path is as good as the
   network that draws it.
4. **Not the reason:** guidance on the way up (no difference), guidance at evaluation (the lag is there at 1, 2
   and 3, at 5 everything shrinks), low timesteps (they hurt both alike), whose path is followed as far as three
   seeds can tell (the reference's varies greatly between seeds).

So, on this world: 24 steps rather than 5 or 10, ReNoise rather than DDIM, `inversion: common` where gains
count, and drawn noise where time does. Whether a base of SD 1.5's size walks more exactly in ten steps hasn't
been measured; tau squared (`train/tau_squared`, 1 for true noise) and the reference's surprise tell on the
first update of any run."""


def page(body: dict[str, Any]) -> str:
    factors = body["factors"]
    first = next(iter(factors.values()))["outcome"]
    steps = [one.split("=")[1] for one in body["sets"] if one.startswith("train.steps=")] or ["60"]
    updates = steps[-1]
    parts = [
        INTRO.format(
            judge=f"`{body['judge']}`",
            prompts=f"{first['prompts']:,}",
            seeds=body["seeds"],
            updates=f"{updates} updates of 16 pairs",
        )
    ]
    parts.append(ANSWER)
    parts.append("## What is resolved\n\n" + "\n".join(_resolved(factors, body["judge"])))
    for name, factor in factors.items():
        parts.append(
            f"## {name[0].upper()}{name[1:]}\n\n{factor['question']}\n\n{_table(factor, body['judge'])}"
        )
    machine = body["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    parts.append(
        "## How to repeat it\n\n"
        "`benchmarks/shapes_inversion.py` runs what is missing, `benchmarks/shapes_inversion_page.py` writes this\n"
        "page from `benchmarks/results/shapes_inversion.json`, which holds every figure by seed. "
        f"{machine['date']}, one CPU thread\n({machine['platform']}), Python {machine['python']}, {versions};\n"
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
    head = [
        "arm", "gain [95 %]", "wins, %", "over the first arm [95 %]", "p", "error", "picture", "tau²", "surprise",
        "winners", "losers", "held out", "passes",
    ]  # fmt: skip
    rows = [head, ["---"] * len(head)]
    for variant in factor["outcome"]["variants"]:
        found = _judged(variant, judge)
        watch = factor["watched"][variant["name"]]
        far = {one["name"]: one["mean"] for one in variant["drift"]}
        against, p = found["against_variant"], found["p_variant_holm"]
        surprise = _mean(watch, "reference_error")
        rows.append(
            [
                variant["name"],
                _span(found["against_base"]["gain"], "+.4f"),
                _span(found["against_base"]["win_rate"], ".0f", 100),
                _span(against["gain"], "+.4f") if against else "–",
                "–" if p is None else "<0.0001" if p < 1e-4 else f"{p:.2g}",
                f"{far.get('error', float('nan')):.2g}",
                f"{far.get('picture', float('nan')):.2g}",
                f"{_mean(watch, 'tau_squared'):.2f}",
                f"{surprise:.2g}",
                f"{100 * _mean(watch, 'gap_winner') / surprise:+.0f} %",
                f"{100 * _mean(watch, 'gap_loser') / surprise:+.0f} %",
                f"{100 * _mean(watch, 'holdout_accuracy'):.0f} %",
                f"{_mean(watch, 'passes_per_picture'):.1f}",
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _judged(variant: dict[str, Any], judge: str) -> dict[str, Any]:
    return next(one for one in variant["judges"] if one["judge"] == judge)


def _mean(watch: list[dict[str, float]], name: str) -> float:
    return sum(one[name] for one in watch) / len(watch)


def _span(estimate: dict[str, Any], form: str, times: float = 1.0) -> str:
    value, low, high = (format(times * estimate[name], form) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
