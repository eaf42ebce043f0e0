"""Hostile and damaged specs against the real skeleton: an answer in words, soon, in little memory, running no code."""

import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smpo.cli.output import shipped_specs
from smpo.diagnostics.render import as_json, render
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import resolve
from smpo.spec.problems import SpecProblems
from tests.cli.words import SMALL_PLANE

SHIPPED = {name: path.read_text(encoding="utf-8") for name, path in shipped_specs().items()}


def answer(file: Path, *sets: str) -> str:
    """What is said about a spec; empty when it is sound. Anything but `SpecProblems` is a bug."""
    try:
        resolve(file, skeleton=ExperimentSpec, sets=sets)
    except SpecProblems as error:
        shown = render(error.problems)
        as_json(error.problems).encode("utf-8", "surrogatepass")
        return shown
    return ""


def laughs(depth: int) -> str:
    lines = [f"k{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 10)}]\n" for i in range(1, depth)]
    return "k0: &b0 [ha, ha]\n" + "".join(lines)


BOMBS = {
    "billion laughs": laughs(12),
    "laughing maps": "a0: &a0 {x: 1}\n"
    + "".join(f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(10))}}}\n" for i in range(1, 12)),
    "open brackets": SMALL_PLANE + "tags: " + "[" * 100_000,
    "deep brackets": SMALL_PLANE + "tags: " + "[" * 50_000 + "]" * 50_000 + "\n",
    "deep blocks": SMALL_PLANE + "".join(" " * i + f"k{i}:\n" for i in range(600)),
    "10 MB of text": SMALL_PLANE + "notes: " + "x" * 10_000_000 + "\n",
    "10 MB of keys": SMALL_PLANE + "tags:\n" + "  key: value\n" * 800_000,
    "10 MB of numbers": SMALL_PLANE + "tags: [" + "1," * 5_000_000 + "]\n",
    "10 MB of comments": "# \n" * 3_500_000 + SMALL_PLANE,
    "10 MB of nothing": "\0" * 10_000_000,
    "a number of 100,000 digits": SMALL_PLANE.replace("steps: 4,", f"steps: {'9' * 100_000},", 1),
    "a name of 200,000 letters": SMALL_PLANE.replace("smoothing: likelihood", "smoothing: " + "l" * 200_000),
    "15,000 unknown keys": SMALL_PLANE + "".join(f"stepz{i}: 1\n" for i in range(15_000)),
    "15,000 files of code": SMALL_PLANE + "uses: [" + ",".join(f"./no{i}.py" for i in range(15_000)) + "]\n",
    "1,500 misspelt judges": SMALL_PLANE.replace(
        "[plane-radius, plane-on-axis]", "[" + ",".join(["plane-raduis"] * 1_500) + "]"
    ),
    "15,000 judges": SMALL_PLANE.replace(
        "[plane-radius, plane-on-axis]", "[" + ",".join(["plane-radius"] * 15_000) + "]"
    ),
}


@pytest.fixture(scope="module", autouse=True)
def warm():
    """Modules and the bound skeleton are there before anything is measured."""
    resolve(shipped_specs()["plane_smpo"], skeleton=ExperimentSpec)


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_get_a_clear_error_in_bounded_time_and_memory(bomb: str, tmp_path: Path) -> None:
    file = tmp_path / "bomb.yaml"
    file.write_text(BOMBS[bomb], encoding="utf-8")
    tracemalloc.start()
    start = time.process_time()
    try:
        said = answer(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert said.startswith("error: ") and len(said) < 100_000
    assert time.process_time() - start < 15, "tracing memory makes everything some five times slower"
    assert peak < 100e6


def test_a_set_line_of_megabytes_is_answered(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(SMALL_PLANE)
    for value in ("[" * 1_000_000, "x" * 5_000_000, "{" + "a: 1, " * 500_000 + "}"):
        start = time.process_time()
        assert answer(file, f"train.steps={value}").startswith("error: ")
        assert time.process_time() - start < 10


BITS = [
    "use", "extends: quickstart.yaml\n", "uses: [./trap.py]\n", "sweep: {}\n", "null", "~", "1e400", "-1", "0", ".nan",
    "{use: dpo}", "[]", "{}", "[smpo, dpo]", "smpo", "sdxl", "&a ", "*a", "!!python/object/apply:os.system ['touch x']",
    "<<: ", "\t", "\n", "  ", ": ", "- ", "#", "'", '"', "|", ">", "%", "@", "\x00", "\ud800", "🙂", "---\n", "...\n",
    "? ",
]  # fmt: skip


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """A shipped spec after some accidents."""
    lines = SHIPPED[draw(st.sampled_from(sorted(SHIPPED)))].splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(len(lines) - 1, 0)))
        line = lines[at] if lines else ""
        cut = draw(st.integers(0, len(line)))
        match draw(st.sampled_from(["insert", "drop", "double", "swap", "indent", "value", "cut"])):
            case "insert":
                lines[at : at + 1] = [line[:cut] + draw(st.sampled_from(BITS)) + line[cut:]]
            case "drop":
                lines[at : at + 1] = []
            case "double":
                lines[at:at] = [line]
            case "swap":
                other = draw(st.integers(0, max(len(lines) - 1, 0)))
                if lines:
                    lines[at], lines[other] = lines[other], lines[at]
            case "indent":
                lines[at : at + 1] = [draw(st.sampled_from([" ", "  ", "\t"])) + line]
            case "value" if ":" in line:
                lines[at : at + 1] = [f"{line.split(':')[0]}: {draw(st.sampled_from(BITS))}\n"]
            case _:
                lines[at : at + 1] = [line[:cut]]
    return "".join(lines)


@settings(max_examples=80, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=mutants())
def test_a_damaged_shipped_spec_is_answered_and_runs_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "trap.py").write_text("from pathlib import Path\nPath(__file__).with_name('sprung').touch()\n")
    file = tmp_path / "mutant.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    answer(file)
    assert not (tmp_path / "sprung").exists() and not (tmp_path / "x").exists()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["smpo", "", "null", "renoise", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["use", "steps", "x"]), inner),
    max_leaves=6,
)


@settings(max_examples=30, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(
        [
            "objective",
            "train.steps",
            "train.optimiser",
            "evaluate",
            "evaluate.rewards",
            "runtime",
            "name",
            "tags.x",
        ]
    ),
    value=values,
)
def test_any_value_anywhere_is_answered(path: str, value: object, tmp_path: Path) -> None:
    import json

    file = tmp_path / "spec.yaml"
    file.write_text(SMALL_PLANE)
    answer(file, f"{path}={json.dumps(value)}")
