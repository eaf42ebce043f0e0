"""Prompts and tables as people save them: byte order marks, encodings, separators of Unicode, quotes."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smpo.components.prompts import TablePrompts, TextPrompts
from smpo.data.sources.prompt_tables import read_list, read_table
from smpo.data.sources.text_files import table_rows
from smpo.errors import MachineError

SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=30)


def written(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5))
def test_a_table_that_csv_writes_comes_back(
    rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("prompt", "category"), *rows])
    names, found = table_rows(file)
    assert names == ["prompt", "category"]
    assert [(row["prompt"], row["category"]) for row in found] == rows


@pytest.mark.parametrize("separator", SEPARATORS)
def test_separators_of_unicode_belong_to_their_line(separator: str, tmp_path: Path) -> None:
    text = f"a cat{separator}sitting"
    table = written(tmp_path, "a.csv", f"prompt,category\n{text},x\n")
    assert read_table(table, "prompt", "category") == [(text, "x")]
    objects = written(tmp_path, "a.jsonl", json.dumps({"prompt": text}, ensure_ascii=False) + "\n")
    if separator >= "\x20":  # JSON has control characters escaped
        assert read_table(objects, "prompt", None) == [(text, "")]
    plain = written(tmp_path, "a.txt", f"{text}\n")
    assert [prompt.text for prompt in TextPrompts(path=str(plain)).load()] == [text]


def test_a_line_break_in_quotes_is_part_of_the_cell(tmp_path: Path) -> None:
    table = written(tmp_path, "a.csv", 'prompt\n"a cat\nsitting"\n')
    assert read_table(table, "prompt", None) == [("a cat\nsitting", "")]


def test_a_text_with_the_delimiter_and_no_quotes_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", "prompt\na dog\na cat, sitting on a mat\n")
    with pytest.raises(MachineError, match="line 3 has 2 fields, and the header 1"):
        read_table(file, "prompt", None)
    assert "line 3" in (TablePrompts(path=str(file)).check() or ""), "before training"


def test_a_quote_at_the_start_of_a_tsv_cell_swallows_no_row(tmp_path: Path) -> None:
    file = written(tmp_path, "a.tsv", 'prompt\tcategory\n"so loud a cat\tx\na dog\ty\n')
    assert read_table(file, "prompt", "category") == [('"so loud a cat', "x"), ("a dog", "y")]
    file = written(tmp_path, "b.tsv", 'prompt\tcategory\n"a ""loud"" cat"\tx\n')
    assert read_table(file, "prompt", "category") == [('a "loud" cat', "x")]


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    text = "a cat " * 50_000
    assert read_table(written(tmp_path, "a.csv", f"prompt\n{text}\n"), "prompt", None) == [(text.strip(), "")]
    assert csv.field_size_limit() == limit, "the limit of other readers stays"


def test_a_byte_order_mark_is_dropped_everywhere(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    assert read_table(written(tmp_path, "a.csv", mark + b"prompt\na cat\n"), "prompt", None) == [("a cat", "")]
    objects = written(tmp_path, "a.jsonl", mark + b'{"prompt": "a cat"}')
    assert read_table(objects, "prompt", None) == [("a cat", "")]
    assert read_list(written(tmp_path, "a.json", mark + b'["a cat"]')) == ["a cat"]
    plain = written(tmp_path, "a.txt", mark + b"# a comment\r\na cat\r\n")
    assert [prompt.text for prompt in TextPrompts(path=str(plain)).load()] == ["a cat"]


def test_other_encodings_are_refused_with_the_line(tmp_path: Path) -> None:
    plain = TextPrompts(path=str(written(tmp_path, "a.txt", b"a cat\na caf\xe9\n")))
    assert "line 2 is not UTF-8" in (plain.check() or "")
    with pytest.raises(MachineError, match="line 2 is not UTF-8"):
        plain.load()


def test_half_a_character_is_refused_with_the_line(tmp_path: Path) -> None:
    objects = TablePrompts(path=str(written(tmp_path, "a.jsonl", '{"prompt": "a"}\n{"prompt": "\\ud800"}\n')))
    assert "line 2 holds half a character" in (objects.check() or "")
    with pytest.raises(MachineError, match="half a character"):
        read_list(written(tmp_path, "a.json", '["\\udfff"]'))
