"""`smpo`: the commands, their options, and how they end.

Exit codes: 0 fine, 1 failed while running, 2 the spec is wrong, 3 not possible on this machine, 130 interrupted.
Only typer is imported here, so that `smpo --help` answers at once; each command imports what it needs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from smpo.cli import complete

__all__ = ["app", "main"]

app = typer.Typer(
    name="smpo",
    help="Preference optimisation of text-to-image diffusion models, declared in one YAML file.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
registry = typer.Typer(
    help="Cards and components that a spec can name.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(registry, name="registry")
track = typer.Typer(help="The record of runs in MLflow.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(track, name="track")

Spec = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        help="A spec file, or the name of a shipped one (quickstart).",
        autocompletion=complete.specs,
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="PATH=VALUE",
        help="Change one value, as if written in the file. Repeatable.",
        autocompletion=complete.set_paths,
    ),
]
Roots = Annotated[
    list[Path] | None, typer.Option("--registry", metavar="DIR", help="One more folder of cards. Repeatable.")
]
NoCode = Annotated[
    bool, typer.Option("--no-local-code", help="Refuse specs that name local Python files (`uses:`).")
]
Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help="Runs, diffusers folders, LoRA folders, hub names; `label=` before one names it.",
    ),
]
OptionalModels = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MODEL...]", help="As for `smpo eval`."),
]
Json = Annotated[bool, typer.Option("--json", help="Print data instead of prose.")]


@app.command()
def run(
    spec: Spec,
    sets: Sets = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted run of this spec stopped.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Run a spec that has already been run once more.")
    ] = False,
    devices: Annotated[int | None, typer.Option(help="Processes, one a device (runtime.devices).")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs of a `ladder:` at once.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
    roots: Roots = None,
    no_local_code: NoCode = False,
) -> None:
    """Train, evaluate and track what a spec describes."""
    from smpo.cli.run import run_command

    extra = [f"runtime.devices={devices}"] if devices is not None else []
    run_command(
        spec,
        [*(sets or []), *extra],
        resume=resume,
        again=again,
        jobs=jobs,
        quiet=quiet,
        roots=roots,
        no_local_code=no_local_code,
    )


@app.command()
def plan(
    spec: Spec,
    sets: Sets = None,
    full: Annotated[bool, typer.Option("--full", help="Every value, with who set it.")] = False,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="What the whole of its `sweep:` block would cost.")
    ] = False,
    json: Json = False,
    roots: Roots = None,
    no_local_code: NoCode = False,
) -> None:
    """Show what a spec amounts to; run nothing."""
    if sweep:
        from smpo.cli.sweep import plan_sweep_command

        plan_sweep_command(spec, sets or [], as_json=json, roots=roots, no_local_code=no_local_code)
        return
    from smpo.cli.plan import plan_command

    plan_command(spec, sets or [], full=full, as_json=json, roots=roots, no_local_code=no_local_code)


@app.command()
def sweep(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[show] [SPEC]", help="A spec with a `sweep:` block (default: sweep); `show` only looks."
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Finished trials in all; the same command again goes on.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Trials at once, one a GPU or core.")] = 1,
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="Begin no trial after 90s, 15m, 2h.")
    ] = None,
    gpu_hours: Annotated[
        float | None, typer.Option(min=0, help="Begin no trial after so many hours of trials in all.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Database for many machines; default: a file.")
    ] = None,
    best: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the best spec goes.")] = None,
    no_confirm: Annotated[
        bool, typer.Option("--no-confirm", help="Don't run the best again on fresh seeds.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
    sets: Sets = None,
    roots: Roots = None,
    no_local_code: NoCode = False,
) -> None:
    """Search the settings that a spec's `sweep:` block names."""
    from smpo.cli.sweep import show_command, sweep_command

    show, *rest = [*(words or []), ""] if words and words[0] == "show" else ["", *(words or []), ""]
    spec = rest[0] or "sweep"
    if show:
        show_command(spec, sets or [], storage=storage, roots=roots, no_local_code=no_local_code)
        return
    sweep_command(
        spec,
        sets or [],
        trials=trials,
        jobs=jobs,
        timeout=timeout,
        gpu_hours=gpu_hours,
        storage=storage,
        quiet=quiet,
        best=best,
        confirm=not no_confirm,
        roots=roots,
        no_local_code=no_local_code,
    )


@app.command()
def check(
    specs: Annotated[
        list[str], typer.Argument(metavar="SPEC...", help="Spec files.", autocompletion=complete.specs)
    ],
    sets: Sets = None,
    json: Json = False,
    roots: Roots = None,
    no_local_code: NoCode = False,
) -> None:
    """Validate specs, many at once; for commits and CI."""
    from smpo.cli.plan import check_command

    check_command(specs, sets or [], as_json=json, roots=roots, no_local_code=no_local_code)


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it; NAME.yaml is written here.")],
    start: Annotated[
        str,
        typer.Option("--from", metavar="SPEC", help="A spec to start from.", autocompletion=complete.specs),
    ] = "quickstart",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented spec to start from."""
    from smpo.cli.new import new_command

    new_command(name, start, force=force)


@app.command()
def diff(
    before: Annotated[
        str,
        typer.Argument(
            metavar="A", help="A spec, a run folder, or a run's hash.", autocompletion=complete.specs_or_runs
        ),
    ],
    after: Annotated[
        str, typer.Argument(metavar="B", help="Another one.", autocompletion=complete.specs_or_runs)
    ],
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    json: Json = False,
    roots: Roots = None,
    no_local_code: NoCode = False,
) -> None:
    """Compare two experiments, value by value."""
    from smpo.cli.compare import diff_command

    diff_command(before, after, runs, as_json=json, roots=roots, no_local_code=no_local_code)


@app.command("eval")
def evaluate(
    models: Models,
    spec: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Prompts, judges and base; default: the first run's own spec."),
    ] = None,
    sets: Sets = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where the table goes; default: under the runs."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
    json: Json = False,
    roots: Roots = None,
) -> None:
    """Compare any models with their base: the same prompts and seeds, every judge, intervals."""
    from smpo.cli.eval import eval_command

    eval_command(
        models, spec=spec, sets=sets or [], runs=runs, folder=folder, roots=roots, as_json=json, quiet=quiet
    )


@app.command()
def compare(
    models: OptionalModels = None,
    spec: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Prompts, judges and base; default: the first run's own spec."),
    ] = None,
    sets: Sets = None,
    page: Annotated[Path, typer.Option("--out", metavar="FILE", help="The page.")] = Path("compare.html"),
    prompts: Annotated[int, typer.Option(min=1, help="Prompts whose pictures are on the page.")] = 60,
    votes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Convert votes that were downloaded from a page.")
    ] = None,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="Where they go, as parquet.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
    roots: Roots = None,
) -> None:
    """Look at models side by side, or vote blindly: one HTML file that needs nothing else."""
    from smpo.cli.compare_page import compare_command, votes_command

    if votes is not None:
        votes_command(votes, to)
        return
    compare_command(
        models or [],
        spec=spec,
        sets=sets or [],
        runs=runs,
        file=page,
        prompts=prompts,
        roots=roots,
        quiet=quiet,
    )


@app.command()
def show(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run folder, the beginning of its spec hash, or an experiment's name; nothing lists all.",
            autocompletion=complete.run_ids,
        ),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    json: Json = False,
) -> None:
    """Show a run: its state, its result, and the spec it ran. Without a name, list all runs."""
    from smpo.cli.show import list_command, show_command

    if run is None:
        list_command(runs, as_json=json)
    else:
        show_command(run, runs, as_json=json)


Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run folder, the beginning of its spec hash, or an experiment's name.",
        autocompletion=complete.run_ids,
    ),
]
Runs = Annotated[Path, typer.Option(help="Folder of run folders.")]


@app.command()
def rerun(
    run: Run,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="PATH=VALUE", help="Change a `runtime` setting. Repeatable."),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Go on though data, weights or code aren't those of the run.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail unless everything is the same bit for bit.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the comparison.")] = False,
    json: Json = False,
    runs: Runs = Path("runs"),
) -> None:
    """Run a finished run once more, beside it, and say whether it came out the same."""
    from smpo.cli.proof import rerun_command

    rerun_command(run, runs, sets or [], anyway=anyway, strict=strict, quiet=quiet, as_json=json)


@app.command()
def verify(
    run: Run,
    files_only: Annotated[
        bool, typer.Option("--files-only", help="Check hashes; don't evaluate again.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Evaluate only so many prompts again, evenly over the set.")
    ] = None,
    json: Json = False,
    runs: Runs = Path("runs"),
) -> None:
    """Check a finished run: its files, and whether its model still gets the recorded scores."""
    from smpo.cli.proof import verify_command

    verify_command(run, runs, files_only=files_only, limit=limit, as_json=json)


@app.command()
def doctor(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run to look at; without one, this machine.",
            autocompletion=complete.run_ids,
        ),
    ] = None,
    json: Json = False,
    runs: Runs = Path("runs"),
) -> None:
    """Is all well? With this machine, or with a run. Exit code 1 when something is broken."""
    from smpo.cli.doctor import doctor_command

    doctor_command(run, runs, as_json=json)


@app.command()
def ui(
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Browse runs in the MLflow UI."""
    from smpo.cli.show import ui_command

    ui_command(runs, port)


@app.command()
def schema(
    write: Annotated[
        Path | None, typer.Option("--write", help="Write to this file instead of printing.")
    ] = None,
    shipped: Annotated[
        bool, typer.Option("--shipped", help="Only what comes with smpo, whatever else is installed.")
    ] = False,
    roots: Roots = None,
) -> None:
    """JSON Schema of the language as installed here, for editors."""
    from smpo.cli.registry import schema_command

    schema_command(write, roots, shipped=shipped)


@registry.command("list")
def registry_list(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]", help="Only this kind, such as reward.", autocompletion=complete.kinds
        ),
    ] = None,
    json: Json = False,
    roots: Roots = None,
) -> None:
    """Everything a spec can name, with a line about each."""
    from smpo.cli.registry import list_command

    list_command(kind, as_json=json, roots=roots)


@registry.command("check")
def registry_check(json: Json = False, roots: Roots = None) -> None:
    """Look at every card: is it sound, and does what it names exist?"""
    from smpo.cli.registry import check_command

    check_command(as_json=json, roots=roots)


@registry.command("show")
def registry_show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A card or component, such as renoise.", autocompletion=complete.names
        ),
    ],
    json: Json = False,
    roots: Roots = None,
) -> None:
    """One card or component: formula, fields, defaults, source."""
    from smpo.cli.registry import show_command

    show_command(name, as_json=json, roots=roots)


@track.command("sync")
def track_sync(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run folder, or the beginning of its spec hash.")
    ],
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    uri: Annotated[str | None, typer.Option(help="MLflow tracking URI; default as for `smpo run`.")] = None,
) -> None:
    """Send a run's own log to MLflow: for runs whose server was away. Safe to repeat."""
    from smpo.cli.show import sync_command

    sync_command(run, runs, uri)


data_app = typer.Typer(help="The pairs that a spec trains on.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
cache_app = typer.Typer(
    help="Scores, latents, prompts and indexes that runs share.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(cache_app, name="cache")
Place = Annotated[
    str, typer.Argument(metavar="SPEC|FOLDER", help="A spec, or the folder of a cache (runs/cache).")
]


@data_app.command("audit")
def data_audit(
    spec: Spec,
    sets: Sets = None,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where page and data go; default: under runs.")
    ] = None,
    no_score: Annotated[
        bool, typer.Option("--no-score", help="Compare with the reward only as far as its scores are cached.")
    ] = False,
    json: Json = False,
    roots: Roots = None,
    no_local_code: NoCode = False,
) -> None:
    """Find what is the matter with preference pairs before training on them."""
    from smpo.cli.data import audit_command

    audit_command(
        spec,
        sets or [],
        folder=folder,
        score=not no_score,
        as_json=json,
        roots=roots,
        no_local_code=no_local_code,
    )


@app.command()
def score(
    spec: Spec,
    sets: Sets = None,
    reward: Annotated[
        str | None, typer.Option("--reward", metavar="NAME", help="Another reward than the spec's.")
    ] = None,
    json: Json = False,
    roots: Roots = None,
    no_local_code: NoCode = False,
) -> None:
    """Score a spec's pairs with its reward; what is known isn't computed again."""
    from smpo.cli.data import score_command

    score_command(spec, sets or [], reward=reward, as_json=json, roots=roots, no_local_code=no_local_code)


@cache_app.command("list")
def cache_list(place: Place, sets: Sets = None, json: Json = False) -> None:
    """What a cache holds, and how much of the disk."""
    from smpo.cli.cache import list_command

    list_command(place, sets or [], as_json=json)


@cache_app.command("verify")
def cache_verify(
    place: Place,
    sets: Sets = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Discard what is damaged; with a spec, compute it again.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare every file of a cache with what was written. Exit code 1 when something is damaged."""
    from smpo.cli.cache import verify_command

    verify_command(place, sets or [], repair=repair, as_json=json)


@cache_app.command("clean")
def cache_clean(
    place: Place,
    what: Annotated[
        list[str] | None,
        typer.Option("--what", metavar="KIND", help="latents, prompts, scores or pairs, whole. Repeatable."),
    ] = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Delete what no index mentions (leftovers of killed writers), or whole kinds of entries."""
    from smpo.cli.cache import clean_command

    clean_command(place, sets or [], what=what or [], as_json=json)


def main() -> None:
    """The console script. What smpo raises on purpose is worded; anything else is a bug and keeps its traceback."""
    from smpo.errors import SmpoError

    try:
        app()
    except SmpoError as error:
        from smpo.cli.words import print_error

        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        sys.exit(130)
    except BrokenPipeError:  # `smpo ... | head`: the reader has seen enough
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
