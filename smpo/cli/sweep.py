"""`smpo sweep`: a search, live on the screen, and what came out of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from smpo.app.distributed.environment import rank_from_environment
from smpo.app.sweep.display import SweepResult
from smpo.app.sweep.request import ResolvedSweep, SweepRequest, resolve_sweep
from smpo.app.sweep.study import find_study
from smpo.app.sweep.worker import sweep
from smpo.app.sweep.workers.slurm import Engine
from smpo.cli.output import find_spec, out
from smpo.cli.sweep_table import Screen, best_of, seconds_of, trials_table
from smpo.errors import RunError

__all__ = ["show_command", "sweep_command", "words_of"]


def sweep_command(
    spec: str, sets: Sequence[str], *, trials: int | None, jobs: int, timeout: str | None, gpu_hours: float | None,
    trial_timeout: str | None, storage: str | None, quiet: bool, best: Path | None, confirm: bool,
    workers: int | None, on: Engine, options: Sequence[str], roots: Sequence[Path] | None, no_local_code: bool,
) -> None:  # fmt: skip
    from smpo.app.run.ranks import require_single_process
    from smpo.app.sweep.finish import conclude

    require_single_process(rank_from_environment(), "a sweep", "`--jobs`")
    wish = SweepRequest(
        spec=find_spec(spec),
        sets=tuple(sets),
        roots=tuple(roots or ()),
        no_local_code=no_local_code,
        trials=trials,
        timeout=seconds_of(timeout) if timeout else None,
        gpu_hours=gpu_hours,
        jobs=jobs,
        storage=storage,
        trial_timeout=seconds_of(trial_timeout) if trial_timeout else None,
    )
    prepared = resolve_sweep(wish)
    if workers is not None:
        _submit(prepared, workers, on, options, words_of(wish, timeout, best, confirm))
        return
    with Screen(prepared, quiet=quiet) as screen:
        ending = sweep(
            prepared,
            screen,
            then=lambda one, coordinator: conclude(one, coordinator, screen, best=best, confirm=confirm),
        )
    show_ending(ending)


def words_of(wish: SweepRequest, timeout: str | None, best: Path | None, confirm: bool) -> list[str]:
    """The command line of a worker elsewhere: what was typed here, from an absolute path."""
    words = ["sweep", str(wish.spec.absolute()), "--quiet", "--jobs", str(wish.jobs)]
    given = {
        "--trials": wish.trials, "--timeout": timeout, "--gpu-hours": wish.gpu_hours, "--storage": wish.storage,
        "--trial-timeout": wish.trial_timeout, "--best": best,
    }  # fmt: skip
    words += [str(part) for name, value in given.items() if value is not None for part in (name, value)]
    words += [part for one in wish.sets for part in ("--set", one)]
    words += [part for root in wish.roots for part in ("--registry", str(root.absolute()))]
    words += ["--no-confirm"] if not confirm else []
    return words + (["--no-local-code"] if wish.no_local_code else [])


def _submit(prepared: ResolvedSweep, workers: int, on: Engine, options: Sequence[str], words: Sequence[str]) -> None:
    """The study is made here, so that its mistakes are seen here, and no two workers make it."""
    from smpo.app.sweep.study import open_prepared
    from smpo.app.sweep.workers.slurm import submit, worker_command

    wrong = next((one for one in options if "=" not in one.strip("=")), None)
    if wrong is not None:
        raise RunError(f"`{wrong}` is not an option", help="options are `-o partition=gpu`")
    study, _ = open_prepared(prepared)
    jobs = submit(
        worker_command(words), workers=workers, on=on, folder=prepared.folder / "cluster", name=prepared.name,
        options=dict(one.split("=", 1) for one in options),
    )  # fmt: skip
    console = out()
    console.print(f"study {escape(study.id)} in {escape(prepared.storage_shown)}")
    if "://" not in prepared.storage:
        console.print("           a file: every worker must see it at this path, and the `runs` folder as well")
    console.print(f"submitted  {workers} workers to {on}: {jobs[0]}{f' … {jobs[-1]}' if workers > 1 else ''}")
    console.print(f"their words {escape(str(prepared.folder / 'cluster'))}/*.out")
    console.print(f"watch      smpo sweep show {escape(str(prepared.request.spec))}")


def show_command(
    spec: str, sets: Sequence[str], *, storage: str | None, roots: Sequence[Path] | None, no_local_code: bool
) -> None:
    """The study of a spec as it stands: all trials, what they cost, what matters; and the report, written anew."""
    from smpo.app.sweep.finish import write_report
    from smpo.app.sweep.workers.messages import read_json
    from smpo.sweep.chart import importance

    wish = SweepRequest(find_spec(spec), tuple(sets), tuple(roots or ()), no_local_code, storage=storage)
    prepared = resolve_sweep(wish)
    study = find_study(prepared)
    trials = study.trials()
    ending = SweepResult("finished", study, trials, prepared, read_json(prepared.folder / "confirmed.json"))
    console, counts = out(), ending.counts
    console.print(f"[bold]{escape(study.id)}[/]  {escape(prepared.storage_shown)}")
    console.print(trials_table(trials, prepared))
    shares = importance(study)
    if shares:
        console.print("\nimportance  " + "  ".join(f"{escape(name)} {share:.2f}" for name, share in shares.items()))
    if counts.running:
        console.print(f"{counts.running} running")
    ending.files = write_report(ending)
    show_ending(ending, table=False)


def show_ending(ending: SweepResult, *, table: bool = True) -> None:
    """What is known now, what is left, and where things are."""
    from smpo.app.sweep.confirm import confirmed_lines

    console, prepared, counts = out(), ending.prepared, ending.counts
    if table:
        console.print(trials_table(best_of(prepared, ending.trials), prepared))
    console.print(
        f"\n{counts.finished} of {prepared.wanted} trials finished ({counts.pruned} pruned), {counts.failed} failed"
    )
    reasons: dict[str, int] = {}
    for trial in ending.trials:
        if trial.state == "failed" and not trial.given_back:
            reasons[trial.reason] = reasons.get(trial.reason, 0) + 1
    for reason, number in sorted(reasons.items(), key=lambda item: -item[1])[:5]:
        console.print(f"  [red]failed[/] {number} ×  {escape(reason)}")
    for line in confirmed_lines(ending.confirmed):
        console.print(escape(line))
    for file in ending.files:
        console.print(f"written    {escape(str(file))}")
    if ending.why == "failures":
        raise RunError(
            f"the last {prepared.sweep.spec.patience} trials failed, so the sweep stopped",
            help="look at the reasons above; `sweep.patience` is how many failures in a row are borne",
        )
    if ending.why in ("timeout", "gpu hours"):
        console.print(f"stopped by its budget ({ending.why}); the same command with more goes on")
    if ending.why == "interrupted":
        raise KeyboardInterrupt
