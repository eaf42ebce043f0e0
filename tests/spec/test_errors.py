"""Golden errors: this folder is the documentation of error quality.

`errors/<case>.yaml` is a mistake, `errors/<case>.txt` is what smpo says. A first line `# args: --set a=b`
brings a command line. `SMPO_REGENERATE=1 python -m pytest tests/spec/test_errors.py` writes the texts; read
the diff.
"""

import os
import shlex
from pathlib import Path

import pytest

from smpo.diagnostics.render import render
from smpo.registry.trust import trust_all
from smpo.spec.problems import SpecProblems
from tests.spec.kitchen.meal import cook

HERE = Path(__file__).parent
CASES = sorted(path.stem for path in (HERE / "errors").glob("*.yaml") if not path.stem.startswith("_"))
BROKEN_CARDS = Path("kitchen/broken")


def arguments(case: Path) -> list[str]:
    first = case.read_bytes().split(b"\n")[0].decode("utf-8", "replace")
    return shlex.split(first.removeprefix("# args:")) if first.startswith("# args:") else []


def complaint(case: Path) -> str:
    words = arguments(case)
    sets = [words[index + 1] for index, word in enumerate(words) if word == "--set"]
    roots = (Path("kitchen/registry"), *([BROKEN_CARDS] if "--broken-cards" in words else []))
    trust_all("--untrusted" not in words)
    try:
        with pytest.raises(SpecProblems) as caught:
            cook(case, *sets, roots=roots)
    finally:
        trust_all(False)
    assert caught.value.exit_code == 2
    return render(caught.value.problems)


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    said = complaint(Path(f"errors/{case}.yaml"))
    golden = HERE / "errors" / f"{case}.txt"
    if os.environ.get("SMPO_REGENERATE"):
        golden.write_text(said, encoding="utf-8")
    assert said == golden.read_text(encoding="utf-8")


def test_no_text_without_its_mistake() -> None:
    assert sorted(path.stem for path in (HERE / "errors").glob("*.txt")) == CASES
    assert len(CASES) >= 30
