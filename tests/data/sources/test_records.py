"""Records are read one by one, whatever the file, and what they state lies on disk."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smpo.data.sources import records
from smpo.data.sources.formats import Shown
from smpo.data.sources.record_store import RecordStore
from smpo.data.sources.records import read_records
from smpo.data.sources.source import Stated
from smpo.errors import MachineError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(st.sampled_from('a"\\]},[{é 😀'), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.dictionaries(st.text("xy", max_size=3), VALUES, max_size=3), max_size=6),
    st.sampled_from([None, 1]), st.integers(1, 9), st.booleans(),
)  # fmt: skip
def test_lists_are_read_in_any_chunks(
    tmp_path: Path, listed: list[Any], indent: int | None, chunk: int, ascii: bool
) -> None:
    file = tmp_path / "records.json"
    file.write_text(" \n" + json.dumps(listed, indent=indent, ensure_ascii=ascii) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "CHUNK", chunk)
        assert list(read_records(file)) == listed
    lines = tmp_path / "records.jsonl"
    lines.write_text("\n\n".join(json.dumps(one) for one in listed))
    assert list(read_records(lines)) == listed


@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1}',
        '[{"a": 1} {"b": 2}]',
        '[{"a": 1},]',
        "[1]",
        '{"a": 1}',
        '[{"a": }]',
        "[{}] x",
        "",
        "[",
        "[null]",
    ],
)
def test_what_is_no_list_of_records_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "records.json"
    file.write_text(text)
    with pytest.raises(MachineError, match=r"isn't a list of records|can't be read"):
        list(read_records(file))


def test_statements_come_back_as_they_were() -> None:
    said = [
        Shown("a cat", ("b.jpg", "a.jpg"), Stated(0.75, 4)),
        Shown(None, ("", "a.jpg"), Stated(None, 1, "no_label", "half a character: \ud800")),
        Shown("\udc00", ("é/1.jpg", "é/1.jpg"), Stated(1.0)),
    ]
    spool = RecordStore(iter(said))
    assert len(spool) == 3 and [spool[i] for i in range(3)] == said
    assert [list(some) for some in spool.portions(2)] == [[(0, said[0]), (1, said[1])], [(2, said[2])]]
    assert list(spool.names()) == ["", "a.jpg", "b.jpg", "é/1.jpg"]
    with pytest.raises(IndexError):
        spool[3]


def test_names_come_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    from smpo.data.sources import record_store as spool

    monkeypatch.setattr(spool, "PORTION", 1)
    many = RecordStore(Shown("p", (f"{i}", f"{i + 1}"), Stated(1.0)) for i in range(250))
    assert list(many.names()) == sorted({str(i) for i in range(251)})
