"""Models that can be compared: located, and loaded as a denoiser.

A model is a run, a diffusers folder or hub name, a LoRA (a file, or a folder with one), or weights of the plane. All
are judged by one spec, whose model slot determines the base that they are compared with, and the family that loads
them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from smpo.engine.checkpoints.files import best_of, checkpoints, step_of
from smpo.errors import MachineError, RunError, SmpoError
from smpo.experiment import ExperimentSpec
from smpo.families.files.adapters import adapter_file, load_adapter
from smpo.kinds import Denoiser, Model, Runtime, Sampling
from smpo.registry.resolve import resolve
from smpo.runs.store import RunFolder, find_runs, is_run
from smpo.weights import stored_variant

__all__ = ["BASE", "ModelRef", "find_models", "load_model", "model_ref", "sampling_of", "spec_of"]

LORA = "pytorch_lora_weights.safetensors"
BASE = "base"


@dataclass(frozen=True)
class ModelRef:
    """A model of a comparison: its name, and where its weights are."""

    name: str
    weights: str | None
    """A folder or hub name for the spec's family; None is the base itself."""
    lora: Path | None = None
    """The file of a LoRA over the base."""
    run: RunFolder | None = None
    checkpoint: Path | None = None
    """One of the run's, instead of what it saved at its end."""


def find_models(words: Sequence[str], runs: Path) -> list[ModelRef]:
    """The model of each word: `PATH`, `RUN`, `owner/name`, or `label=` before any of these. `RUN@best` and `RUN@120`
    are checkpoints. Raises `RunError`."""
    found: list[ModelRef] = []
    for word in words:
        label, _, place = word.rpartition("=")
        one = _find(place, runs)
        name = label or one.name
        if name in {BASE, *(other.name for other in found)}:
            name = f"{name} ({len(found) + 1})"
        found.append(replace(one, name=name))
    return found


def spec_of(contenders: Sequence[ModelRef]) -> Path:
    """The spec of the first run among them. Raises `RunError` when there is none."""
    for one in contenders:
        if one.run is not None:
            return one.run.resolved
    raise RunError(
        "none of these models is a run, so it isn't known which prompts and judges to use",
        help="name a spec whose `model` and `evaluate` blocks fit them: `--spec experiments/sd15_smpo.yaml`",
    )


def model_ref(run: RunFolder | None) -> ModelRef:
    """What a run saved; without a run, the base of the spec. Raises `RunError` when nothing was saved."""
    if run is None:
        return ModelRef(BASE, None)
    name = f"{run.name} {run.spec_hash[:6]}"
    if not run.model.is_dir():
        raise RunError(f"run {run.path} has no model: it is {run.summary()}")
    if (run.model / LORA).exists():
        return ModelRef(name, None, lora=run.model / LORA, run=run)
    return ModelRef(name, str(run.model), run=run)


def load_model(model: Model, one: ModelRef, runtime: Runtime) -> tuple[Denoiser, str]:
    """`(the model as a denoiser whose policy it is, what identifies its weights)`."""
    fields = type(model).model_fields
    if one.checkpoint is not None:
        return _from_checkpoint(one, one.checkpoint, runtime)
    change: dict[str, Any] = {"lora": None} if "lora" in fields else {}
    if one.weights is not None:
        change |= {"weights": one.weights} | {
            name: None for name in ("revision", "config", "original_config", "vae", "vae_revision") if name in fields
        }
    if one.weights is not None and "variant" in fields:
        change["variant"] = stored_variant(Path(one.weights).expanduser() / "unet")
    recipe = model.model_copy(update=change)
    if message := recipe.check():
        raise MachineError(f"{one.name}: {message}")
    denoiser = recipe.load(runtime)
    if one.lora is None:
        return denoiser, denoiser.weights_key
    stack = getattr(denoiser, "stack", None)
    if stack is None:
        raise RunError(f"{one.name}: a LoRA needs a UNet, and the spec's model `{model.use}` has none")
    try:
        load_adapter(stack.pipeline, one.lora)
    except RunError as error:
        raise RunError(f"{one.name}: {error.message}", help=error.help) from error
    content = hashlib.sha256(one.lora.read_bytes()).hexdigest()[:16]
    return denoiser, f"{denoiser.weights_key} + lora {content}"


def _from_checkpoint(one: ModelRef, checkpoint: Path, runtime: Runtime) -> tuple[Denoiser, str]:
    """The model of the run's own spec, with the weights that it had then; their moving average, where there is one."""
    from smpo.app.build.live import trainable_parameters
    from smpo.engine.checkpoints.checkpoint import load_weights

    assert one.run is not None
    denoiser = resolve(one.run.resolved, skeleton=ExperimentSpec).spec.model.load(runtime)
    key = load_weights(checkpoint, trainable_parameters(denoiser.policy))
    return denoiser, f"{denoiser.weights_key} + checkpoint {key}"


def sampling_of(one: ModelRef) -> Sampling:
    """How a run's objective draws from its policy (CSFT puts words before prompts). Models that are no runs, and runs
    whose spec can't be read any more, draw prompts as they are."""
    if one.run is None:
        return Sampling()
    try:
        return resolve(one.run.resolved, skeleton=ExperimentSpec).spec.objective.sampling()
    except SmpoError:
        return Sampling()


def _find(place: str, runs: Path) -> ModelRef:
    word, at, which = place.rpartition("@")
    path = Path(place).expanduser()
    if at and not path.exists():
        return _checkpoint_of(word, which, runs)
    for folder in (path, path.parent) if path.name == "model" else (path,):  # a run's saved model is that run
        if is_run(folder):
            return model_ref(RunFolder(folder))
    if path.is_dir() and (lora := adapter_file(path)) is not None:
        return ModelRef(path.name, None, lora=lora)
    if path.suffix == ".safetensors" and path.is_file() and _is_lora(path):
        return ModelRef(path.stem, None, lora=path)
    inside = (path / "model_index.json", path / "model.safetensors")
    if path.suffix == ".safetensors" or any(file.exists() for file in inside):
        return ModelRef(path.name, str(path))
    if known := _runs(place, runs):
        finished = [run for run in known if run.model.is_dir()]
        return model_ref((finished or known)[-1])
    if place.count("/") == 1 and not path.exists() and not place.startswith((".", "/")):
        return ModelRef(place, place)  # a name on the hub
    raise RunError(
        f"`{place}` is neither a run nor a model",
        help=f"a run folder, a run's name or hash in {runs}, a diffusers folder, a LoRA, or owner/name",
    )


def _runs(word: str, runs: Path) -> list[RunFolder]:
    """Runs of this hash, else of this name."""
    return find_runs(runs, spec_hash=word) or [run for run in find_runs(runs) if run.name == word]


def _checkpoint_of(word: str, which: str, runs: Path) -> ModelRef:
    """`which`: `best`, or the number of updates. Raises `RunError`."""
    path = Path(word).expanduser()
    known = [RunFolder(path)] if is_run(path) else _runs(word, runs)
    if not known:
        raise RunError(f"`{word}` is no run, so it has no checkpoint `{which}`")
    run = known[-1]
    there = {str(step_of(file)): file for file in checkpoints(run.checkpoints)}
    if (best := best_of(run.checkpoints)) is not None:
        there["best"] = best[0]
    if which not in there:
        raise RunError(
            f"run {run.path} has no checkpoint `{which}`: it has {', '.join(there) or 'none'}",
            help="`runtime.keep_best` keeps the best of a run" if which == "best" else None,
        )
    return ModelRef(f"{run.name} {run.spec_hash[:6]}@{which}", None, run=run, checkpoint=there[which])


def _is_lora(file: Path) -> bool:
    from smpo.families.files.checkpoint_layouts import is_lora
    from smpo.weights import read_shapes

    return is_lora(read_shapes(file))
