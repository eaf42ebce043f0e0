"""`smpo`: its commands, in the order of its help, and how they end.

Exit codes: 0 fine, 1 failed while running, 2 the spec is wrong, 3 not possible on this machine, 130 interrupted,
143 terminated.
Only typer is imported here, so that `smpo --help` answers at once: `commands` hold the options, and each command
imports what it needs when it is called.
"""

from __future__ import annotations

import typer

from smpo.cli.commands import data, models, proof, registry, specs, train
from smpo.cli.exit_codes import open_streams, quiet_libraries, run_with_exit_code

__all__ = ["app", "main"]


def _group(words: str) -> typer.Typer:
    return typer.Typer(help=words, no_args_is_help=True, rich_markup_mode=None)


app = typer.Typer(
    name="smpo",
    help="Preference optimisation of text-to-image diffusion models, declared in one YAML file.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train.run)
app.command()(specs.plan)
app.command()(train.sweep)
app.command()(specs.check)
app.command()(specs.new)
app.command()(specs.diff)
app.command("eval")(models.evaluate)
app.command()(models.compare)
app.command()(models.show)
app.command()(proof.rerun)
app.command()(proof.verify)
app.command()(proof.doctor)
app.command()(models.ui)
app.command()(specs.schema)
app.command()(data.score)

registry_app = _group("Cards and components that a spec can name.")
registry_app.command("list")(registry.registry_list)
registry_app.command("check")(registry.registry_check)
registry_app.command("show")(registry.registry_show)

track_app = _group("The record of runs in MLflow.")
track_app.command("sync")(models.track_sync)

data_app = _group("The pairs that a spec trains on.")
data_app.command("audit")(data.data_audit)

cache_app = _group("Scores, latents, prompts and indexes that runs share.")
cache_app.command("list")(data.cache_list)
cache_app.command("verify")(data.cache_verify)
cache_app.command("clean")(data.cache_clean)


app.add_typer(registry_app, name="registry")
app.add_typer(track_app, name="track")
app.add_typer(data_app, name="data")
app.add_typer(cache_app, name="cache")


def main() -> None:
    """The console script."""
    open_streams()
    quiet_libraries()
    run_with_exit_code(app)


if __name__ == "__main__":
    main()
