"""`smpo verify`: checks a finished run against its records.

Three checks: its files are those that it wrote; this machine computes as the run's did; and the saved model gets the
same scores on the same prompts and seeds, bit for bit where nothing differs (processor, versions, threads), within the
recorded intervals elsewhere.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smpo.errors import RunError, SpecError
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved, resolve
from smpo.runs.lock import RunFacts, changes, read_lock
from smpo.runs.manifest import faults, read_manifest
from smpo.runs.store import RunFolder

if TYPE_CHECKING:
    from smpo.evaluation.results.agreement import Agreement, Table

__all__ = ["Verdict", "resolved_of", "verify"]

Progress = Callable[[str, int, int], None]


@dataclass
class Verdict:
    """The result of `verify`. `faults` are failures; `notes` are things to know."""

    run: RunFolder
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    """Facts of this machine that differ from the run's, and can change the last digits."""
    checkpoints: int = 0
    files: int = 0
    judged: list[Agreement] = field(default_factory=list)
    exact: bool = False
    """Whether every score had to be the same to the last bit."""

    @property
    def sound(self) -> bool:
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": str(self.run.path),
            "sound": self.sound,
            "files": self.files,
            "checkpoints": self.checkpoints,
            "faults": self.faults,
            "notes": self.notes,
            "different": self.different,
            "exact": self.exact,
            "judges": [one.to_dict() for one in self.judged],
        }


def verify(run: RunFolder, progress: Progress, *, files_only: bool = False, limit: int | None = None) -> Verdict:
    """Raises `RunError` for a run that isn't finished: there is nothing to confirm yet."""
    if run.is_live():
        raise RunError(f"{run.path} is running now", help="verify it when it is done")
    if run.status().state != "done":
        raise RunError(
            f"{run.path} is not finished: it is {run.summary()}",
            help="a run records hashes and results at its end; go on with it by `smpo run ... --resume`",
        )
    verdict = Verdict(run)
    _files(verdict)
    if files_only:
        return verdict
    if not (run.path / "evaluation.json").exists():
        verdict.notes.append("the run has no evaluation, so its results can't be compared")
        return verdict
    if run.dropped:
        verdict.notes.append(f"its model was deleted ({run.dropped}), so it can't be evaluated again")
        return verdict
    if verdict.faults:
        verdict.notes.append("not evaluated again: first the files must be right")
        return verdict
    _scores(verdict, progress, limit)
    return verdict


def resolved_of(run: RunFolder, sets: tuple[str, ...] = ()) -> Resolved[ExperimentSpec]:
    """What was run, as today's components understand it.

    Raises `RunError` when it isn't there, and when it means something else today: a component's version was raised.
    """
    if not run.resolved.is_file():
        raise RunError(f"{run.path} holds no resolved.yaml", help="it stopped before it had begun")
    return resolve(run.resolved, skeleton=ExperimentSpec, sets=sets)


def _files(verdict: Verdict) -> None:
    from smpo.engine.checkpoints.files import checkpoints, manifest_fault

    run = verdict.run
    manifest = read_manifest(run)
    if manifest is not None:
        verdict.files = len(manifest)
        verdict.faults += faults(run)
    elif (run.path / "files.json").exists():
        verdict.faults.append("files.json can't be read")
    else:
        verdict.notes.append("no files.json: the run's files were not hashed when it ended")
    for path in checkpoints(run.checkpoints):
        verdict.checkpoints += 1
        if (fault := manifest_fault(path)) is not None:
            verdict.faults.append(f"checkpoint {path.name}: {fault}")


def _scores(verdict: Verdict, progress: Progress, limit: int | None) -> None:
    """Load the saved model and its base, draw the recorded pictures again, and judge them."""
    from smpo.app.run.lock_file import arithmetic, prompts_digest
    from smpo.evaluation.results.agreement import agreements, recorded
    from smpo.evaluation.sampling.slots import spread
    from smpo.runs.lock import INFLUENCES, lock_facts

    run = verdict.run
    resolved = resolved_of(run)
    if resolved.identity.spec_hash != run.spec_hash:
        verdict.notes.append(
            f"today this spec is {resolved.identity.spec_hash}: a component has a new version, so results may differ"
        )
    wanted = resolved.spec.evaluate
    if wanted is None:
        raise SpecError("evaluate", f"{run.resolved} evaluates nothing, and the run has an evaluation")
    evaluation = _json(run.path / "evaluation.json")
    before = recorded(evaluation)
    prompts = spread(wanted.prompts.load(), wanted.limit)
    lock = read_lock(run.lock_file)
    digest = lock.get("data", {}).get("prompts") if isinstance(lock.get("data"), dict) else None
    if digest is not None and digest != prompts_digest(prompts):
        verdict.faults.append("the prompts are not those that the run was judged on")
        return
    part = spread(prompts, limit)
    now, device = _draw(resolved, run, part, progress)
    here = lock_facts(RunFacts(spec=run.spec_hash, arithmetic=arithmetic()), devices=[device])
    verdict.different = changes({k: v for k, v in lock.items() if k != "labels"}, here, INFLUENCES)
    verdict.exact = bool(lock) and not verdict.different and len(part) == len(prompts) and device == "cpu"
    base_is_fresh = not int(evaluation.get("reused", 0))
    verdict.judged = agreements(before, now)
    for name in sorted(name for name in before.scores if now.named(before.keys[name]) is None):
        verdict.faults.append(f"`{name}` judged the run, and is not among the spec's judges now")
    for one in verdict.judged:
        fault = ""
        differing, by = one.differing, f"differ by up to {one.largest:.2g}"
        if one.missing or not one.pictures:
            fault = f"{one.missing:,} of the recorded pictures could not be drawn again"
        elif not one.within:
            fault = "the result lies outside the recorded interval"
        elif verdict.exact and differing["policy"]:
            fault = f"{differing['policy']:,} scores of the policy {by}, "
            fault += "though nothing that the lock knows is different here"
        elif verdict.exact and differing["base"] and base_is_fresh:
            fault = f"{differing['base']:,} scores of the base {by}"
        if fault:
            verdict.faults.append(f"`{one.judge}`: {fault}")


def _draw(
    resolved: Resolved[ExperimentSpec], run: RunFolder, prompts: list[Any], progress: Progress
) -> tuple[Table, str]:
    """`(scores of base and saved policy, the device's name)`. Nothing is taken from a cache."""
    import gc

    from smpo.app.build.device import live_runtime
    from smpo.app.evaluate.judge_names import judge_names
    from smpo.app.evaluate.models import load_model, model_ref
    from smpo.app.evaluate.prompt_prefix import prompted
    from smpo.app.run.lock_file import device_name
    from smpo.evaluation.results.agreement import Table
    from smpo.evaluation.results.evaluate import SamplingSettings, score_model
    from smpo.evaluation.sampling.picture_cache import BaseCache

    spec, wanted = resolved.spec, resolved.spec.evaluate
    assert wanted is not None
    runtime = replace(live_runtime(spec), reference=False)
    names = judge_names(resolved)
    scorers = {name: reward.load(runtime) for name, reward in zip(names, wanted.rewards, strict=True)}
    settings = SamplingSettings.of(wanted, batch=spec.runtime.encode_batch)
    scores: dict[str, Any] = {name: {} for name in names}
    device = "cpu"
    with tempfile.TemporaryDirectory(prefix="smpo-verify-") as scratch:
        for model, ref in (("base", model_ref(None)), ("policy", model_ref(run))):
            denoiser, _ = load_model(spec.model, ref, runtime)
            device = device_name(denoiser.device)
            sampler = denoiser if model == "base" else prompted(denoiser, spec.objective.sampling())
            cache = BaseCache(Path(scratch), model)
            found = score_model(model, sampler, prompts, scorers, settings=settings, cache=cache, progress=progress)
            for name in names:
                scores[name][model] = found[name].tolist()
            del denoiser, sampler
            gc.collect()
    keys = {name: scorer.key for name, scorer in scorers.items()}
    return Table(prompts, wanted.images, wanted.seed, scores, keys), device


def _json(path: Path) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} can't be read: {error}") from error
    if not isinstance(found, dict):
        raise RunError(f"{path} should hold a JSON object")
    return found
