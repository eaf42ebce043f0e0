"""Why does inverted noise lag behind drawn noise on shapes? One factor at a time, over seeds, with intervals.

    python benchmarks/shapes_inversion.py                   # three seeds, 90 minutes of one core; stopped, it goes on
    python benchmarks/shapes_inversion.py --factors noise grid --seeds 5
    python benchmarks/shapes_inversion.py --part 1/2 & python benchmarks/shapes_inversion.py --part 2/2 & wait
    python benchmarks/shapes_inversion.py --quick           # seconds, to see that it works; no result

The method is the quickstart's (SmPO's loss, smoothed labels, 60 updates of 16 pairs); what differs is which noise the
two networks are compared on. Every run is an ordinary one and is kept; what is there is read. Each factor is a small
ablation: all arms against its first, paired by seed and prompt, on untouched prompts, by the judge that has never seen
a label. `--part` runs its share and writes nothing; the last call without it gathers. The page in docs/ is written from
the results by benchmarks/shapes_inversion_page.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from output import add_arguments, target, write
from quickstart import QUICK, SPEC, machine, run_folder, world

HERE = Path(__file__).parent
JUDGE = "shapes-judge"
FORWARD = "inversion={use: none}"
INVERTED = "inversion={use: renoise, steps: 12, spacing: quadratic, by: policy}"


def renoise(**changes: Any) -> str:
    """The usual inversion with some settings changed."""
    settings = {"use": "renoise", "steps": 12, "spacing": "quadratic", "by": "policy"} | changes
    return "inversion={" + ", ".join(f"{name}: {value}" for name, value in settings.items()) + "}"


@dataclass(frozen=True)
class Arm:
    """A way to train. `base`: relative noise on the base's weights."""

    name: str
    sets: tuple[str, ...]
    base: float = 0.0


@dataclass(frozen=True)
class Factor:
    """A question, and the arms that answer it; all are compared with the first."""

    question: str
    arms: tuple[Arm, ...]
    guidance: float | None = None
    """Evaluate the finished runs again at this guidance."""


DRAWN, WALKED = Arm("drawn noise, shared", (FORWARD,)), Arm("inverted noise", (INVERTED,))
ONE_EACH = Arm("drawn noise, one each", ("inversion={use: none, shared: false}",))
FACTORS = {
    "noise": Factor(
        "Which noise: drawn or inverted, shared by the pair or one each, or a blend?",
        (
            DRAWN,
            ONE_EACH,
            WALKED,
            Arm("inverted noise, one for both", (renoise(use="common"),)),
            Arm("a quarter drawn", (renoise(use="blend", fresh=0.25),)),
            Arm("half drawn", (renoise(use="blend", fresh=0.5),)),
        ),
    ),
    "grid": Factor(
        "How fine a grid, and where are its points?",
        (
            WALKED,
            Arm("5 even steps", (renoise(steps=5, spacing="even"),)),
            Arm("12 even steps", (renoise(spacing="even"),)),
            Arm("24 even steps", (renoise(steps=24, spacing="even"),)),
            Arm("6 quadratic steps", (renoise(steps=6),)),
            Arm("24 quadratic steps", (renoise(steps=24),)),
        ),
    ),
    "walk": Factor(
        "Does the correction matter, and whose path is followed?",
        (
            WALKED,
            Arm("no correction (DDIM)", (renoise(use="ddim"),)),
            Arm("along the reference", (renoise(by="reference"),)),
            Arm("along the reference, no correction", (renoise(use="ddim", by="reference"),)),
            Arm("guidance 2 on the way up", (renoise(guidance=2),)),
        ),
    ),
    "one noise each": Factor(
        "Is inverted noise worse than drawn noise not shared either? Asked after the first tables.",
        (
            ONE_EACH,
            WALKED,
            Arm("inverted, 24 even steps", (renoise(steps=24, spacing="even"),)),
            Arm("inverted, 24 quadratic steps", (renoise(steps=24),)),
        ),
    ),
    "one noise for both": Factor(
        "And inverted noise that is shared, on a finer grid, against drawn noise that is shared?",
        (
            DRAWN,
            Arm("inverted, one for both", (renoise(use="common"),)),
            Arm("inverted, one for both, 24 even steps", (renoise(use="common", steps=24, spacing="even"),)),
        ),
    ),
    "approximations": Factor(
        "What do cheaper walks cost? The last arm makes as many passes as the first.",
        (
            WALKED,
            Arm("skip first", (renoise(skip_first="true"),)),
            Arm("reuse last", (renoise(reuse_last="true"),)),
            Arm("reuse last, 100 updates", (renoise(reuse_last="true"), "train.steps=100")),
        ),
    ),
    "levels, drawn": Factor(
        "At which timesteps, with drawn noise?",
        (
            DRAWN,
            Arm("t from 0", (FORWARD, "train.t_min=0")),
            Arm("t from 200 to 800", (FORWARD, "train.t_min=200", "train.t_max=800")),
        ),
    ),
    "levels, inverted": Factor(
        "At which timesteps, with inverted noise?",
        (
            WALKED,
            Arm("t from 0", (INVERTED, "train.t_min=0")),
            Arm("t from 200 to 800", (INVERTED, "train.t_min=200", "train.t_max=800")),
        ),
    ),
    "base, 10 % blurred": Factor(
        "Does a worse base hurt inversion more? Noise of 10 % of their spread on its weights; pictures hardly suffer.",
        (
            Arm("drawn noise, blurred base", (FORWARD,), 0.1),
            Arm("inverted noise, blurred base", (INVERTED,), 0.1),
        ),
    ),
    "base, 20 % blurred": Factor(
        "The same with 20 %: its pictures suffer.",
        (
            Arm("drawn noise, worse base", (FORWARD,), 0.2),
            Arm("inverted noise, worse base", (INVERTED,), 0.2),
        ),
    ),
    "guidance 1": Factor("Evaluated without guidance", (DRAWN, WALKED), guidance=1.0),
    "guidance 3": Factor("Evaluated at guidance 3", (DRAWN, WALKED), guidance=3.0),
    "guidance 5": Factor("Evaluated at guidance 5", (DRAWN, WALKED), guidance=5.0),
}


def blurred(scale: float, folder: Path) -> Path:
    """The shapes base with Gaussian noise on the UNet's weights, `scale` of each tensor's own deviation."""
    import torch
    from safetensors.torch import load_file, save_file

    from smpo.worlds.shapes import BASE

    place = folder / f"base-blurred-{scale:g}"
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(BASE, place)
        file = place / "unet" / "diffusion_pytorch_model.safetensors"
        noise = torch.Generator().manual_seed(0)
        tensors = {}
        for name, value in sorted(load_file(file).items()):
            full = value.float()
            spread = full.std() if full.numel() > 1 else torch.tensor(0.0)
            tensors[name] = (full + scale * spread * torch.randn(full.shape, generator=noise)).to(value.dtype)
        save_file(tensors, file, metadata={"format": "pt"})
        (place / "done").touch()
    return place


def sets_of(arm: Arm, seed: int, options: argparse.Namespace) -> list[str]:
    common = [f"train.seed={seed}", "runtime.preview_every=null", "train.holdout=64"]
    common += [f"runtime.device={options.device}", *options.sets]
    if arm.base:
        place = blurred(arm.base, options.runs)
        common.append(f"model={{use: stable-diffusion, weights: {place}}}")
    return [*arm.sets, *common]


def watched(folder: Path) -> dict[str, float]:
    """What the noise was like, and what training did on it: from the run's log."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if "train/loss" in line]
    held = [line for line in lines if "holdout/accuracy" in line]
    first, last = train[0], train[-1]
    tail = train[-max(1, len(train) // 4) :]

    def mean(name: str) -> float:
        return sum(line[name] for line in tail) / len(tail)

    return {
        "tau_squared": first["train/tau_squared"],
        "reference_error": first["train/error/winner"] - first.get("train/gap/winner", 0.0),
        "passes_per_picture": first["train/passes"],
        "gap_winner": mean("train/gap/winner"),
        "gap_loser": mean("train/gap/loser"),
        "implicit_accuracy": mean("train/implicit_accuracy"),
        "holdout_accuracy": held[-1]["holdout/accuracy"] if held else float("nan"),
        "holdout_gap_winner": held[-1]["holdout/gap/winner"] if held else float("nan"),
        "tau_squared_last": last["train/tau_squared"],
    }


def at_guidance(folders: dict[tuple[str, int], Path], guidance: float) -> dict[tuple[str, int], dict[str, Any]]:
    """Finished runs, judged again: for each what `evaluation.json` would say. Pictures that are known aren't drawn."""
    from smpo.app.evaluate.compare import compare_models
    from smpo.app.evaluate.models import find_models
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve

    names = {f"{number}": key for number, key in enumerate(folders)}
    words = [f"{name}={folders[key]}" for name, key in names.items()]
    source = next(iter(folders.values())) / "resolved.yaml"
    resolved = resolve(source, skeleton=ExperimentSpec, sets=[f"evaluate.guidance={guidance}"])
    held = compare_models(resolved, find_models(words, Path("runs")), lambda *_: None)
    told = held.contest.to_dict()
    made = {judge["name"]: judge["made_labels"] for judge in told["judges"]}
    return {
        key: {
            "prompts": told["prompts"],
            "role": told["role"],
            "drift": told["drift"].get(name),
            "judgements": [
                {
                    "name": judge,
                    "made_labels": made[judge],
                    "policy": told["scores"][name][judge],
                    "base": told["scores"][told["base"]][judge],
                }
                for judge in made
            ],
        }
        for name, key in names.items()
    }


def gather(names: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Every factor as a table, from the runs' folders."""
    from smpo.evaluation.results.ablation import VariantRuns, tabulate

    seeds = range(options.seeds)
    found: dict[str, Any] = {}
    for name in names:
        factor = FACTORS[name]
        folders = {
            (arm.name, seed): run_folder(SPEC, sets_of(arm, seed, options), options.runs)[0]
            for arm in factor.arms
            for seed in seeds
        }
        if factor.guidance is not None:
            evaluations = at_guidance(folders, factor.guidance)
        else:
            evaluations = {key: json.loads((f / "evaluation.json").read_text()) for key, f in folders.items()}
        variants = [
            VariantRuns(
                arm.name,
                factor.arms[0].name if arm is not factor.arms[0] else None,
                {seed: evaluations[arm.name, seed] for seed in seeds},
                {seed: json.loads((folders[arm.name, seed] / "cost.json").read_text()) for seed in seeds},
            )
            for arm in factor.arms
        ]
        watch = {arm.name: [watched(folders[arm.name, seed]) for seed in seeds] for arm in factor.arms}
        found[name] = {
            "question": factor.question,
            "guidance": factor.guidance,
            "outcome": tabulate(name, variants, seeds=options.seeds).to_dict(),
            "watched": watch,
        }
    return {
        "spec": SPEC.name,
        "seeds": options.seeds,
        "sets": options.sets,
        "judge": JUDGE,
        "world": world(),
        "machine": machine(),
        "factors": found,
    }


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--factors", nargs="*", choices=list(FACTORS), default=list(FACTORS))
    parser.add_argument("--part", default="", help="K/N: run the K-th of N shares of what is missing, gather nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--set", action="append", default=[], dest="sets")
    add_arguments(parser, device=True)
    options = parser.parse_args(words)
    if not options.quick:
        options.runs = options.runs / world()
        return measure(options)
    options.sets += QUICK
    options.seeds, options.factors = 1, ["base, 20 % blurred"]
    with tempfile.TemporaryDirectory() as folder:
        options.runs = Path(folder)
        return measure(options)


def measure(options: argparse.Namespace) -> None:
    """Runs what is missing of the share and, without `--part`, gathers and writes the result."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    arms = {arm: None for name in options.factors for arm in FACTORS[name].arms}
    todo = [(arm, seed) for seed in range(options.seeds) for arm in arms]
    if options.part:
        share, of = map(int, options.part.split("/"))
        todo = todo[share - 1 :: of]
    for number, (arm, seed) in enumerate(todo, 1):
        folder, _ = run_folder(SPEC, sets_of(arm, seed, options), options.runs)
        judged = json.loads((folder / "evaluation.json").read_text())["judgements"]
        gain = next(j["comparison"] for j in judged if j["name"] == JUDGE)
        print(
            f"[{number}/{len(todo)}] {arm.name:30s} seed {seed}  {gain['gain']:+.4f}  "
            f"wins {gain['win_rate']:.3f} [{gain['win_rate_low']:.3f}, {gain['win_rate_high']:.3f}]",
            flush=True,
        )
    if options.part:
        return
    body = gather(options.factors, options)
    out = target(options, "shapes_inversion.json")
    write(out, body)
    print(f"written: {out}; now python benchmarks/shapes_inversion_page.py")


if __name__ == "__main__":
    main()
