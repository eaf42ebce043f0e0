"""Golden errors as people meet them: the real registry, the real skeleton, the words on their screen.

`errors/<case>.yaml` is a mistake, `errors/<case>.txt` is what `smpo check` says of it, and its exit code. A first line
`# args: -s a=b` brings options, `# smpo: plan --sweep` another command. tests/spec/errors holds the same for a toy
skeleton, where every rule of the language has its case. `SMPO_REGENERATE=1 python -m pytest tests/cli/test_errors.py`
writes the texts; read the diff.
"""

import os
import shlex
from pathlib import Path

import pytest

from tests.cli.words import smpo

HERE = Path(__file__).parent / "errors"
ROOT = HERE.parents[2]
CASES = sorted(path.stem for path in HERE.glob("*.yaml") if not path.stem.startswith("_"))


def command(case: str) -> list[str]:
    first = (HERE / f"{case}.yaml").read_text().split("\n")[0]
    for mark in ("# smpo:", "# args:"):
        if first.startswith(mark):
            words = shlex.split(first.removeprefix(mark))
            verb, rest = (words[0], words[1:]) if mark == "# smpo:" else ("check", words)
            return [verb, f"{HERE.relative_to(ROOT)}/{case}.yaml", *rest]
    return ["check", f"{HERE.relative_to(ROOT)}/{case}.yaml"]


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    said = smpo(capfd, *command(case))
    text = f"{said.err.rstrip()}\n\nexit code {said.code}\n"
    golden = HERE / f"{case}.txt"
    if os.environ.get("SMPO_REGENERATE"):
        golden.write_text(text, encoding="utf-8")
    assert said.code in (2, 3)
    assert text == golden.read_text(encoding="utf-8"), "SMPO_REGENERATE=1 writes the texts; read the diff"


def test_no_text_without_its_mistake() -> None:
    assert sorted(path.stem for path in HERE.glob("*.txt")) == CASES
    assert len(CASES) >= 60
