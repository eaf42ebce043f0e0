"""`smpo eval`: find models wherever they are, draw the same prompts and seeds from each, compare them with the base.

A model is a run, a diffusers folder or hub name, a folder with a LoRA, or weights of the plane; what they have in
common is the spec that they are judged by: its model slot says which base they are compared with, and which family
reads them.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smpo.app.counts import judge_names
from smpo.errors import MachineError, RunError
from smpo.evaluation.base_cache import BaseCache
from smpo.evaluation.contest import Contest, Judge, rank
from smpo.evaluation.drift import PICTURES, Drift, Probe, distances
from smpo.evaluation.evaluate import Settings, score_model
from smpo.evaluation.sampling import slots, spread, spread_numbers
from smpo.experiment import ExperimentSpec
from smpo.kinds import Denoiser, Model, Prompt, Runtime, Scorer
from smpo.registry.resolve import Resolved, resolve
from smpo.runs.store import RunFolder, find_runs, is_run

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.evaluation.sampling import Slot
    from smpo.kinds import Picture

__all__ = ["Contender", "Held", "contender_of", "find_contenders", "hold", "load_contender", "spec_of"]

LORA = "pytorch_lora_weights.safetensors"
BASE = "base"


@dataclass(frozen=True)
class Contender:
    """A model that takes part: what it is called, and what brings it into memory."""

    name: str
    weights: str | None
    """A folder or hub name for the spec's family; None is the base itself."""
    lora: Path | None = None
    """A LoRA over the base."""
    run: RunFolder | None = None


@dataclass(frozen=True)
class Held:
    """A contest that was held, and where its pictures are."""

    contest: Contest
    resolved: Resolved[ExperimentSpec]
    contenders: tuple[Contender, ...]
    caches: dict[str, BaseCache]
    slots: tuple[Slot, ...]

    def picture(self, model: str, slot: Slot) -> Picture | None:
        return self.caches[model].picture(slot)


def find_contenders(words: Sequence[str], runs: Path) -> list[Contender]:
    """What each word means: `PATH`, `RUN`, `owner/name`, or `label=` before any of these. Raises `RunError`."""
    found: list[Contender] = []
    for word in words:
        label, _, place = word.rpartition("=")
        one = _find(place, runs)
        name = label or one.name
        if name in {BASE, *(other.name for other in found)}:
            name = f"{name} ({len(found) + 1})"
        found.append(replace(one, name=name))
    return found


def spec_of(contenders: Sequence[Contender]) -> Path:
    """The spec of the first run among them. Raises `RunError` when there is none."""
    for one in contenders:
        if one.run is not None:
            return one.run.resolved
    raise RunError(
        "none of these models is a run, so it isn't known which prompts and judges to use",
        help="name a spec whose `model` and `evaluate` blocks fit them: `--spec experiments/sd15_smpo.yaml`",
    )


def hold(
    resolved: Resolved[ExperimentSpec],
    contenders: Sequence[Contender],
    progress: Callable[[str, int, int], None],
) -> Held:
    """Draw, score and compare; what was drawn or scored before is read. Models are in memory one at a time."""
    from smpo.app.assemble import live_runtime

    spec, wanted = resolved.spec, resolved.spec.evaluate
    if wanted is None:
        raise RunError(
            "the spec evaluates nothing", help="give it an `evaluate:` block, or name another with `--spec`"
        )
    runtime = replace(live_runtime(spec), reference=False)
    prompts = spread(wanted.prompts.load(), wanted.limit)
    names = judge_names(resolved)
    scorers = {name: reward.load(runtime) for name, reward in zip(names, wanted.rewards, strict=True)}
    trained = {key for one in contenders if (key := _label_maker(one)) is not None}
    judges = [
        Judge(name, scorers[name].key, reward.learned, scorers[name].key in trained)
        for name, reward in zip(names, wanted.rewards, strict=True)
    ]
    settings = Settings.of(wanted, batch=spec.runtime.encode_batch)
    everybody = (Contender(BASE, None), *contenders)
    scores, caches, drift = {}, {}, {}
    drawn = tuple(slots(prompts, images=wanted.images, seed=wanted.seed))
    near = _Nearness(prompts, drawn, scorers, runtime.batch)
    for one in everybody:
        denoiser, key = load_contender(spec.model, one, runtime)
        told = {
            "weights": key,
            "precision": runtime.precision,
            "guidance": wanted.guidance,
            "steps": wanted.steps,
        }
        caches[one.name] = BaseCache(runtime.cache / "base", json.dumps(told, sort_keys=True))
        scores[one.name] = score_model(
            one.name, denoiser, prompts, scorers, settings=settings, cache=caches[one.name], progress=progress
        )
        if (far := near.measure(denoiser, caches[one.name])) is not None:
            drift[one.name] = far
        del denoiser
        gc.collect()
    card = resolved.card_of("evaluate.prompts")
    contest = rank(
        prompts,
        judges,
        scores,
        settings={
            "guidance": wanted.guidance,
            "steps": wanted.steps,
            "images": wanted.images,
            "seed": wanted.seed,
        },
        prompt_set=card.name if card else wanted.prompts.use,
        role=wanted.prompts.role,
        drift=drift,
    )
    return Held(contest, resolved, everybody, caches, drawn)


class _Nearness:
    """Measures how far each model is from the first that is shown to it, the base. One network is in memory at a time,
    so what the base said is kept."""

    def __init__(
        self, prompts: Sequence[Prompt], drawn: Sequence[Slot], scorers: Mapping[str, Scorer], batch: int
    ) -> None:
        chosen = set(spread_numbers(prompts, PICTURES))
        self._slots = [slot for slot in drawn if slot.prompt in chosen and slot.image == 0]
        self._prompts = [prompts[slot.prompt] for slot in self._slots]
        self._scorers, self._batch = scorers, batch
        self._base: tuple[list[Picture], Probe, Tensor] | None = None

    def measure(self, denoiser: Denoiser, cache: BaseCache) -> Drift | None:
        """None for the base itself, and for a model whose pictures can't be read."""
        found = [cache.picture(slot) for slot in self._slots]
        pictures = [picture for picture in found if picture is not None]
        if len(pictures) < len(found):
            return None
        if self._base is None:
            texts, seeds = [slot.text for slot in self._slots], [slot.seed for slot in self._slots]
            probe = Probe.of(denoiser, texts, seeds, pictures, self._batch)
            self._base = pictures, probe, probe.predictions(denoiser)
            return None
        base, probe, said = self._base
        errors = (probe.predictions(denoiser), said)
        return distances(self._prompts, self._scorers, pictures, base, errors, passes=probe.passes)


def _find(place: str, runs: Path) -> Contender:
    path = Path(place)
    if is_run(path):
        return contender_of(RunFolder(path))
    if (path / LORA).exists():
        return Contender(path.name, None, lora=path)
    if (
        (path / "model_index.json").exists()
        or (path / "model.safetensors").exists()
        or path.suffix == ".safetensors"
    ):
        return Contender(path.resolve().parent.name if path.name == "model" else path.name, str(path))
    known = find_runs(runs, spec_hash=place) or [run for run in find_runs(runs) if run.name == place]
    finished = [run for run in known if run.model.is_dir()]
    if finished:
        return contender_of(finished[-1])
    if known:
        raise RunError(f"run {known[-1].path} has no model: it is {known[-1].summary()}")
    if place.count("/") == 1 and not path.exists() and not place.startswith((".", "/")):
        return Contender(place, place)  # a name on the hub
    raise RunError(
        f"`{place}` is neither a run nor a model",
        help=f"a run folder, a run's name or hash in {runs}, a diffusers folder, a LoRA folder, or owner/name",
    )


def contender_of(run: RunFolder | None) -> Contender:
    """What a run saved; without a run, the base of the spec. Raises `RunError` when nothing was saved."""
    if run is None:
        return Contender(BASE, None)
    name = f"{run.name} {run.spec_hash[:6]}"
    if not run.model.is_dir():
        raise RunError(f"run {run.path} has no model: it is {run.summary()}")
    if (run.model / LORA).exists():
        return Contender(name, None, lora=run.model, run=run)
    return Contender(name, str(run.model), run=run)


def load_contender(model: Model, one: Contender, runtime: Runtime) -> tuple[Denoiser, str]:
    """`(the model as a denoiser whose policy it is, what identifies its weights)`."""
    fields = type(model).model_fields
    change: dict[str, Any] = {"lora": None} if "lora" in fields else {}
    if one.weights is not None:
        change |= {"weights": one.weights} | {
            name: None
            for name in ("revision", "variant", "config", "original_config", "vae", "vae_revision")
            if name in fields
        }
    recipe = model.model_copy(update=change)
    if message := recipe.check():
        raise MachineError(f"{one.name}: {message}")
    denoiser = recipe.load(runtime)
    if one.lora is None:
        return denoiser, denoiser.weights_key
    stack = getattr(denoiser, "stack", None)
    if stack is None:
        raise RunError(f"{one.name}: a LoRA needs a UNet, and the spec's model `{model.use}` has none")
    stack.pipeline.load_lora_weights(one.lora)
    content = hashlib.sha256((one.lora / LORA).read_bytes()).hexdigest()[:16]
    return denoiser, f"{denoiser.weights_key} + lora {content}"


def _label_maker(one: Contender) -> str | None:
    """The key of the reward that smoothed the labels of a run, from its lock file."""
    if one.run is None:
        return None
    try:
        key = json.loads(one.run.lock_file.read_text(encoding="utf-8"))["weights"].get("reward")
    except (OSError, ValueError, LookupError, AttributeError):
        return None
    return key if isinstance(key, str) else None


def resolve_for(source: Path, sets: Sequence[str], roots: Sequence[Path]) -> Resolved[ExperimentSpec]:
    """The spec that models are judged by."""
    return resolve(source, skeleton=ExperimentSpec, sets=sets, extra_roots=roots)
