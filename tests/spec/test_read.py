"""YAML as data: what values mean, where they are, and what a spec refuses to be."""

import time
from pathlib import Path

import pytest

from smpo.spec.problems import SpecProblems
from smpo.spec.read import MAX_DEPTH, MAX_NODES, read
from smpo.spec.source import MAX_BYTES, Source, open_source
from smpo.spec.tree import find, plain


def value(text: str) -> object:
    node = read(Source("text", f"a: {text}\n", Path("text")))
    assert node is not None
    return plain(node)["a"]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0", 0),
        ("007", 7),
        ("0x1F", 31),
        ("0o17", 15),
        ("+3", 3),
        ("off", "off"),
        ("yes", "yes"),
        ("12:30:00", "12:30:00"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("True", True),
        ("~", None),
        ("", None),
        ("null", None),
        ("'null'", "null"),
        ('"5"', "5"),
        ("e5", "e5"),
        (".", "."),
        ("1.2.3", "1.2.3"),
        ("[1, [2, {b: c}]]", [1, [2, {"b": "c"}]]),
        ("|\n  two\n  lines", "two\nlines\n"),
        ("# only a comment", None),
    ],
)
def test_values(text: str, meaning: object) -> None:
    got = value(text)
    assert got == meaning
    assert type(got) is type(meaning)


@pytest.mark.parametrize("text", ["12345678901234567890123456789012345678901234567890", "-7", "0.1", "1e308"])
def test_numbers_are_exact(text: str) -> None:
    assert value(text) == (int(text) if text.lstrip("-").isdigit() else float(text))


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", "1e999", "-1e400", "9" * 500])
def test_no_infinities(text: str) -> None:
    with pytest.raises(SpecProblems, match="number"):
        value(text)


def test_every_key_and_value_knows_its_place() -> None:
    source = Source("f", "# head\na:\n  b: {c: 1,\n      d: 'two'}\n  e: [x, &y yes]\nz: *y\n", Path("f"))
    root = read(source)
    assert root is not None
    _, key, node = find(root, ("a", "b", "d"))
    assert (key.line, key.column, key.text) == (4, 7, "d")
    assert (node.span.line, node.span.text) == (4, "'two'")
    _, _, item = find(root, ("a", "e", 1))
    assert item.span.text == "yes"
    assert find(root, ("z",))[2].span == item.span
    assert find(root, ("a", "nothing"))[0] == ("a",)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_every_sort(end: str) -> None:
    source = Source("f", end.join(["a: 1", "b: 2", "c: x", ""]), Path("f"))
    root = read(source)
    assert root is not None
    span = find(root, ("c",))[2].span
    assert (span.line, span.column, span.text) == (3, 4, "x")
    assert [source.line(number) for number in range(6)] == ["", "a: 1", "b: 2", "c: x", "", ""]


def test_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "bom.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    root = read(open_source(file))
    assert root is not None
    assert (plain(root), root.entries["a"].key.column) == ({"a": 1}, 1)


def test_all_problems_up_to_the_first_syntax_error() -> None:
    with pytest.raises(SpecProblems) as caught:
        read(Source("f", "a: 1\na: !t 2\n<<: {}\nb: [\n", Path("f")))
    said = [problem.message for problem in caught.value.problems]
    assert len(said) == 4
    assert "tags" in said[0]
    assert "already given" in said[1]
    assert "<<" in said[2]


def test_aliases_are_bounded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    began = time.perf_counter()
    with pytest.raises(SpecProblems, match="unfolds"):
        read(Source("f", "\n".join(lines), Path("f")))
    assert time.perf_counter() - began < 1


def test_depth_and_size_are_bounded(tmp_path: Path) -> None:
    fine = "a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert read(Source("f", fine, Path("f")))
    for bad in ("[" * 1000, "{a: " * 1000, "- " * 1000, "\n".join(" " * n + "a:" for n in range(200))):
        with pytest.raises(SpecProblems, match=r"nested|not YAML|closed"):
            read(Source("f", bad, Path("f")))
    with pytest.raises(SpecProblems, match="unfolds"):
        read(Source("f", "[" + "x," * (MAX_NODES + 1) + "]", Path("f")))
    file = tmp_path / "large.yaml"
    file.write_text("a: " + "x" * MAX_BYTES)
    with pytest.raises(SpecProblems, match="at most"):
        open_source(file)


def test_half_a_surrogate_is_not_text() -> None:
    with pytest.raises(SpecProblems, match="surrogate"):
        value(r'"\ud800"')


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecProblems, match="no file"):
        open_source(tmp_path / "nothing.yaml")
    with pytest.raises(SpecProblems, match="no file"):
        open_source(tmp_path / "no" / "folder.yaml")
    with pytest.raises(SpecProblems, match="can't read"):
        open_source(Path("nul\0l.yaml"))
    with pytest.raises(SpecProblems, match="can't read"):
        open_source(Path("x" * 5000))
