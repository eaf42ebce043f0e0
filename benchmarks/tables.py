"""Fill tables of the docs from the committed results, between marks; the words around them are a person's.

python benchmarks/tables.py            # write
python benchmarks/tables.py --check    # 1 when a table isn't that of the results

A table stands between `<!-- NAME -->` and `<!-- end -->`. NAME is a function here.
"""

# ruff: noqa: E501 (prose of a page)

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGES = tuple(HERE.parent / "docs" / name for name in ("devices.md", "ablation.md", "models.md", "howto/reproduce.md"))
RESULTS = HERE / "results"
REMOVED = {"stale", "renoise-stale"}
"""Components in result files that smpo no longer has."""
BLOCK = re.compile(r"<!-- (?P<name>[a-z ]+) -->\n(?P<body>.*?)<!-- end -->\n", re.DOTALL)


def ablation(file: str, judge: str, other: str) -> str:
    """Gains by the judge that never saw a label (in the plane: by the formula that made them), p, distance and cost;
    the gain on the base by the other judge."""
    body = _read(file)
    rows, machine = body["variants"], body["machine"]
    seeds = max(len(row["seeds"]) for row in rows)
    return "\n\n".join(
        [
            f"By `{judge}`:",
            _grid(_variant(row, judge, other) for row in rows),
            f"`{body['command']}`: {seeds} seeds, {body['prompts']:,} {body['role']} prompts, "
            f"{sum(len(row['seeds']) for row in rows)} runs; {machine['date']}, {machine['platform']}, "
            f"torch {machine['packages']['torch']}. All columns: `benchmarks/results/{file}`.",
        ]
    )


def fronts_of_plane() -> str:
    """Gain at equal KL."""
    told = _read("plane_fronts.json")
    cells: dict[tuple[float, str], dict[str, Any]] = {}
    for row in told["summary"]:
        cells.setdefault((row["kl"], row["method"]), {})[row["what"]] = row
    rows = []
    for (kl, method), found in sorted(cells.items(), key=lambda item: item[0][0]):
        plain, guided = found["gain_cfg1"], found["gain_cfg3"]
        chosen = told["chosen"][method]
        rows.append(
            {
                "at KL": f"{kl:g}",
                "method": method,
                "lr, beta": ", ".join(
                    str(value) for value in (chosen.values() if isinstance(chosen, dict) else chosen)
                ),
                "seeds": str(plain["seeds"]),
                "gain, guidance 1": f"{plain['gain']:.3f} ± {plain['half_width']:.3f}",
                "of the best possible": f"{100 * plain['of_the_best']:.0f} %",
                "gain, guidance 3": f"{guided['gain']:.3f} ± {guided['half_width']:.3f}",
            }
        )
    return _grid(rows)


def fronts_of_shapes() -> str:
    """Gain at equal error distance."""
    told = _read("shapes_fronts.json")
    rows = []
    for row in told["summary"]:
        chosen, p = told["chosen"][row["method"]], row["p_holm"]
        over = (row["over_dpo"], row["over_dpo_low"], row["over_dpo_high"]) if "over_dpo" in row else None
        rows.append(
            {
                "at error": f"{row['error']:.2g}",
                "method": row["method"],
                "lr, beta": f"{chosen['lr']}, {chosen['beta']}",
                "seeds": str(row["seeds"]),
                "gain": _span(row["gain"], row["low"], row["high"]),
                "wins, %": f"{100 * row['win_rate']:.0f}",
                "over DPO": _span(*over) if over else "–",
                "p": _p(p),
            }
        )
    return _grid(rows)


def presets() -> str:
    """The specs for cards: what they set, what they take, how fast they are expected to be."""
    rows = []
    for name, row in _read("pretended_memory.json")["presets"].items():
        settings = row["settings"]
        ((gpu, seconds),) = row["seconds_per_pair"].items()
        rows.append(
            {
                "spec": f"`{name}`",
                "trains": settings["trains"],
                "micro-batch, images in an inversion": f"{settings['micro_batch']}, {settings['inversion_batch']}",
                "computed again": settings["computed again"],
                "besides": ", ".join(f"`{one}`" for one in settings["besides"]),
                "planned, GB": f"{row['plan']['reserved_gb']:.1f}",
                "took": f"{row['reserved_gb']:.1f}",
                "expected s a pair": f"{seconds:.2g} ({gpu})",
            }
        )
    return _grid(rows)


def memory() -> str:
    """What trainings of true size took, and what `smpo plan` predicts."""
    told = _read("pretended_memory.json")
    rows = [_took(name, row) for name, row in told["cases"].items()]
    ratios = {
        name: [row[f"{name}_ratio"] for part in ("cases", "presets") for row in told[part].values()]
        for name in ("allocated", "reserved")
    }
    spans = " and ".join(
        f"{min(found):.3f} to {max(found):.3f} times what was {name}" for name, found in ratios.items()
    )
    machine = told["machine"]
    return (
        f"{_grid(rows)}\n\nWith the presets, plans are {spans}. `benchmarks/memory.py`; {machine['device']}, torch "
        f"{machine['torch']}, diffusers {machine['diffusers']}."
    )


def pretended_gpu() -> str:
    """The matrix of settings: which were run, what waited, and what plans say of the memory."""
    found = _read("pretended_gpu.json")
    machine = found["machine"]
    rows = [row for row in found["settings"] if not REMOVED & set(re.split("[= ]", row["settings"]))]
    failed = [row for row in rows if not row["passed"]]
    ratios = [
        row["planned"] / (row["training_allocated"] - row["workspaces"]) for row in rows if row["planned"] is not None
    ]
    waiting = {row["settings"]: row["update"]["waits"] for row in rows if row["update"]["waits"] > 1}
    changed = sorted({word.split("=")[0].strip("'") for row in rows for word in row["settings"].split() if "=" in word})
    parts = [
        f"{len(rows) - len(failed)} of {len(rows)} runs finished: every objective, inversion and optimiser, and combinations "
        f"of {', '.join(f'`{name}`' for name in changed if '.' in name)}. The host waits for the device once an update, except with "
        f"{', '.join(f'`{name}` ({count} times)' for name, count in waiting.items())}. Plans are {min(ratios):.2f} to "
        f"{max(ratios):.2f} times the peak.",
        *(f"* failed: `{row['settings']}`: {row['error'][0]}" for row in failed),
        f"`nox -s pretended_gpu_results`, each run: `benchmarks/results/pretended_gpu.json`; {machine['device']}, torch "
        f"{machine['torch']}, diffusers {machine['diffusers']}, transformers {machine['transformers']}.",
    ]
    return "\n\n".join(parts)


def machines() -> str:
    """How many numerical tests passed under each instruction set."""
    body = _read("machines.json")
    machine, rows = body["machine"], [row for row in body["settings"] if row["ran"]]
    settings = "; ".join(f"{row['setting']} ({row['passed']} passed, {len(row['failed'])} failed)" for row in rows)
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    return (
        f"{settings}.\n\n`benchmarks/machines.py`, {machine['date']}: {machine['processor']} "
        f"({', '.join(machine['instruction sets'])}), {machine['cores']} cores; {packages}."
    )


def _variant(row: dict[str, Any], judge: str, other: str) -> dict[str, str]:
    found = {one["judge"]: one for one in row["judges"]}
    base, before = found[judge]["against_base"], found[judge]["against_variant"]
    error = next(one["mean"] for one in row["drift"] if one["name"] == "error")
    return {
        "variant": row["name"],
        "on": row["against"] or "–",
        "gain on the base": _estimate(base["gain"]),
        "wins, %": f"{100 * base['win_rate']['value']:.0f}",
        "gain on that variant": _estimate(before["gain"]) if before else "–",
        "p": _p(found[judge]["p_variant_holm"]),
        f"`{other}`, gain on the base": _estimate(found[other]["against_base"]["gain"]),
        "error distance": f"{error:.2g}",
        "passes": f"{row['cost']['passes']:,.0f}",
    }


def _estimate(one: dict[str, Any]) -> str:
    return _span(one["value"], one["low"], one["high"])


def _span(value: float, low: float, high: float) -> str:
    return f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"


def _p(value: float | None) -> str:
    return "–" if value is None else "<0.0001" if value < 1e-4 else f"{value:.2g}"


def _took(name: str, row: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {"training": name}
    for kind in ("allocated", "reserved"):
        found[f"{kind}, GB"] = f"{row[f'{kind}_gb']:.1f}"
        found[f"planned {kind}"] = f"x {row[f'{kind}_ratio']:.3f}"
    return found


def _grid(rows: Any) -> str:
    lines = list(rows)
    names = list(lines[0])
    head, *body = (
        "| " + " | ".join(cells) + " |"
        for cells in (names, *([line.get(name, "–") for name in names] for line in lines))
    )
    return "\n".join([head, "|---" * len(names) + "|", *body])


def _read(file: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((RESULTS / file).read_text())
    return told


TABLES: dict[str, Callable[[], str]] = {
    "plane ablation": lambda: ablation("plane_ablation.json", "plane-radius", "plane-on-axis"),
    "shapes ablation": lambda: ablation("shapes_ablation.json", "shapes-judge", "shapes-reward"),
    "plane fronts": fronts_of_plane,
    "shapes fronts": fronts_of_shapes,
    "presets": presets,
    "memory": memory,
    "pretended gpu": pretended_gpu,
    "machines": machines,
}


def filled(page: str) -> str:
    """The page with every block made anew; raises KeyError for a name that isn't a table."""

    def fill(found: re.Match[str]) -> str:
        return f"<!-- {found['name']} -->\n{TABLES[found['name']]()}\n<!-- end -->\n"

    return BLOCK.sub(fill, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    for page in PAGES:
        text = page.read_text()
        made = filled(text)
        if options.check and made != text:
            raise SystemExit(f"{page.name} isn't that of the results")
        page.write_text(made)


if __name__ == "__main__":
    main()
