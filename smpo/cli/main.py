"""`smpo`: its commands, in the order of its help, and how they end.

Exit codes: 0 fine, 1 failed while running, 2 the spec is wrong, 3 not possible on this machine, 130 interrupted,
143 terminated.
"""

from __future__ import annotations

import typer

from smpo.cli.commands import data, models, registry, run, runs, specs, sweep
from smpo.cli.exit_codes import open_streams, quiet_libraries, run_with_exit_code

__all__ = ["app", "main"]


app = typer.Typer(
    name="smpo",
    help="Preference optimisation of text-to-image diffusion models, declared in one YAML file.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS = (
    run.run, specs.plan, sweep.sweep, specs.check, specs.new, specs.diff, models.evaluate, models.compare, runs.show,
    runs.rerun, runs.verify, runs.doctor, runs.ui, specs.schema, data.score,
)  # fmt: skip
for _command in _COMMANDS:
    app.command("eval" if _command is models.evaluate else None)(_command)


def _group(name: str, help: str) -> typer.Typer:
    group = typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name=name)
    return group


_registry = _group("registry", "Cards and components that a spec can name.")
_registry.command("list")(registry.registry_list)
_registry.command("check")(registry.registry_check)
_registry.command("show")(registry.registry_show)

_group("track", "The record of runs in MLflow.").command("sync")(runs.track_sync)
_group("data", "The pairs that a spec trains on.").command("audit")(data.data_audit)

_cache = _group("cache", "Scores, latents, prompts and indexes that runs share.")
_cache.command("list")(data.cache_list)
_cache.command("verify")(data.cache_verify)
_cache.command("clean")(data.cache_clean)


def main() -> None:
    """The console script."""
    open_streams()
    quiet_libraries()
    run_with_exit_code(app)


if __name__ == "__main__":
    main()
