"""The docs run: every snippet is executed, page by page, in an empty folder; generated pages are fresh.

A comment above a block says otherwise: `<!-- not run: why -->`, or `<!-- exits 2 -->` for commands that must fail.
Blocks that begin with `# file: NAME` become files; YAML that names an experiment must be a sound spec.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.words import smpo
from tests.paths import python_path

HERE = Path(__file__).parents[2]
GENERATED = {"cli.md", "registry.md", "spec.md", "errors.md"}
PAGES = [
    page
    for page in sorted((HERE / "docs").rglob("*.md"))
    if not (page.parent.name == "reference" and page.name in GENERATED)
]
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w+)\n(?P<body>.*?)^```", re.M | re.S)


@dataclass(frozen=True)
class Block:
    language: str
    body: str
    mark: str

    @property
    def file(self):
        found = re.match(r"# file: (\S+)\n", self.body)
        return found[1] if found else None


def blocks(page):
    text = page.read_text(encoding="utf-8")
    return [Block(m["language"], m["body"], m["mark"] or "") for m in BLOCK.finditer(text)]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.stem)
def test_snippets_run(page, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        if block.mark.startswith("not run:"):
            assert len(block.mark) > len("not run: "), "say why"
        elif block.file:
            Path(block.file).write_text(block.body, encoding="utf-8")
        elif block.language == "bash":
            for line in block.body.strip().splitlines():
                run(line, block.mark, capfd)
        elif block.language == "python":
            exec(compile(block.body, str(page), "exec"), {"__name__": "snippet"})
        if (
            block.language == "yaml"
            and not block.mark.startswith("not run:")
            and re.search(r"^name: ", block.body, re.M)
            and "\nkind:" not in f"\n{block.body}"
        ):
            assert block.file, f"a spec in {page.name} needs a `# file:` line, so that it is checked"
            said = smpo(capfd, "check", block.file, "--trust-code")
            assert said.code == 0, said.err


def run(line, mark, capfd):
    words = shlex.split(line, comments=True)
    expected = int(mark.removeprefix("exits ")) if mark.startswith("exits ") else 0
    if words[0] == "smpo":
        said = smpo(capfd, *words[1:])
        assert said.code == expected, f"{line}\n{said.out}{said.err}"
        return
    assert words[0] == "pytest", f"only smpo and pytest are run here: {line}"
    env = {**os.environ, "PYTHONPATH": python_path(HERE, Path.cwd())}
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, env=env)
    assert done.returncode == expected, done.stdout


def test_the_error_that_the_first_page_shows_is_the_one_that_is_printed(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (shown,) = [b.body for b in blocks(HERE / "docs" / "index.md") if b.language == "text"]
    said = smpo(capfd, "plan", "plane_smpo", "--set", "train.stepss=3")
    assert said.err.strip() == shown.strip()


def test_generated_pages_are_fresh():
    spec = importlib.util.spec_from_file_location("docs_generate", HERE / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.pages()
    assert set(made) == GENERATED
    stale = [n for n, text in made.items() if (HERE / "docs/reference" / n).read_text(encoding="utf-8") != text]
    assert not stale, "run `nox -s schema`"


def test_the_table_of_what_is_hashed_tells_the_truth():
    from smpo.spec.identity import UNHASHED

    page = (HERE / "docs" / "reference" / "spec.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## )", page, re.M | re.S))
    rows = {name: re.findall(r"^\| `(\w+)` .* (yes|no) \|$", text, re.M) for name, text in sections.items()}
    assert {said for _, said in rows["train"]} == {"yes"} and {said for _, said in rows["runtime"]} == {"no"}
    assert "runtime" in UNHASHED
