"""What answers at once must not load what takes seconds."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "mlflow", "diffusers", "transformers", "accelerate", "pandas", "optuna", "scipy")


def loaded_after(words: list[str], cwd) -> set[str]:
    code = (
        "import sys, json\n"
        f"sys.argv = ['smpo', *{words!r}]\n"
        "from smpo.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "else: code = 0\n"
        "print('\\n#' + json.dumps([code or 0, [m for m in sys.modules if '.' not in m]]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=True)
    exit_code, modules = json.loads(done.stdout.rsplit("\n#", 1)[1])
    assert exit_code == 0, done.stderr
    return set(modules)


def test_help_loads_nothing_but_typer(tmp_path):
    modules = loaded_after(["--help"], tmp_path)
    assert not modules & {*HEAVY, "pydantic", "ruamel", "numpy", "rich"}


@pytest.mark.parametrize(
    "words",
    [["plan", "quickstart"], ["plan", "plane_smpo", "--json"], ["check", "quickstart"], ["registry", "list"]],
)
def test_planning_never_imports_torch(words, tmp_path):
    assert not loaded_after(words, tmp_path) & set(HEAVY)
