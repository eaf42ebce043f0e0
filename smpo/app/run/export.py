"""The result of a run: a folder that others load, with its model card."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

from smpo.app.build.live import LiveRun
from smpo.evaluation.report.model_card import CardFacts, write_card
from smpo.evaluation.results.evaluation import Evaluation
from smpo.experiment import ExperimentSpec
from smpo.registry.component import summary_of
from smpo.registry.resolve import Resolved
from smpo.runs.store import RunFolder

__all__ = ["export"]

_PACKAGES = ("smpo", "torch", "diffusers", "transformers", "peft", "accelerate")


def export(
    resolved: Resolved[ExperimentSpec],
    folder: RunFolder,
    live: LiveRun,
    evaluation: Evaluation | None,
    grid: Path | None,
) -> list[str]:
    """Write `model/` and its README; returns the lines that load it."""
    spec = resolved.spec
    lines = live.session.denoiser.save(folder.model)
    if prefixes := spec.objective.sampling().prefixes:
        lines.append(f"# it was taught with prefixes: begin each prompt with {prefixes[0]!r}")
    if grid is not None:
        shutil.copyfile(grid, folder.model / grid.name)
    card, data_card = resolved.card_of("model"), resolved.card_of("data")
    leaves = resolved.leaves()
    shown = ("model", "data", "reward", "objective", "smoothing", "inversion", "train")
    base = spec.model.facts().weights
    pairs = data_card.name if data_card else str(leaves.get("data.path", spec.data.use))
    report = live.table.report
    facts = CardFacts(
        name=spec.name,
        method=spec.objective.use,
        parts={
            name.capitalize(): (part.use, summary_of(type(part)))
            for name in ("objective", "smoothing", "inversion")
            for part in (getattr(spec, name),)
        },
        spec_hash=resolved.identity.spec_hash,
        settings={path: value for path, value in leaves.items() if path.split(".")[0] in shown},
        base_model=base,
        datasets=[pairs],
        here=[name for name in (base, pairs) if Path(name).expanduser().exists()],
        license=str((card.source or {}).get("licence", "")) if card else "",
        tags=getattr(live.session.denoiser, "tags", ()),
        lora=getattr(spec.model, "lora", None) is not None,
        twin=(folder.model / "kohya").is_dir(),
        data={name: report[name] for name in ("rows", "pairs", "votes", "ties", "dropped", "digest") if name in report},
        updates=_updates(live),
        load_lines=[line.replace(repr(str(folder.model)), "'path/to/this/folder'") for line in lines],
        picture=grid.name if grid is not None else "",
        versions={name: metadata.version(name) for name in _PACKAGES},
    )
    write_card(folder.model, facts, evaluation)
    return lines


def _updates(live: LiveRun) -> str:
    """How many updates the weights hold, where that isn't `train.steps` or needs the word of fp16's loss scale."""
    session = live.session
    left, found = (
        len(session.skipped),
        [f"{session.steps - len(session.skipped):,} of {session.steps:,} applied"],
    )
    if left:
        found.append(f"{left:,} left out, because their loss or gradient was not a number")
    if session.scaler.is_enabled():
        found.append(session.overflows.sentence)
    return "; ".join(found) if len(found) > 1 else ""
