"""The audit names every planted defect, counts it, and names nothing else; its page runs nothing and leaks nothing."""

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from smpo.data.audit import Audit, Expected, audit, margins_of, read_audit_rows
from smpo.data.audit.page import page
from smpo.data.pairs.pickapic import read_pickapic
from smpo.data.sources.pickapic import pickapic_source
from smpo.kinds import ScoreStats
from tests.data.worlds import vote, write


def picture(number: int, width: int = 32, height: int = 32, format: str = "PNG", **options: Any) -> bytes:
    """A smooth picture, as photographs are: it survives JPEG nearly unchanged."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(stream, format, **options)
    return stream.getvalue()


SIZE = 32
PROMPTS = iter(f"prompt number {i}" for i in range(10_000))
NUMBERS = iter(range(100, 100_000))


def fresh(**options: Any) -> bytes:
    return picture(next(NUMBERS), **options)


def clean(rows: int = 8) -> list[dict[str, Any]]:
    return [vote(next(PROMPTS), fresh(), fresh(), float(i % 2)) for i in range(rows)]


def planted() -> dict[str, list[dict[str, Any]]]:
    """Rows by the finding that they must cause, and no other."""
    a, b, c, d = (fresh() for _ in range(4))
    copy = next(NUMBERS)
    e, e_again, f, f_again = (
        picture(copy), picture(copy, format="JPEG", quality=95), picture(copy + 500_000),
        picture(copy + 500_000, format="JPEG", quality=95),
    )  # fmt: skip
    twin = next(NUMBERS)
    nan = float("nan")
    return {
        "tie": [vote("tied", fresh(), fresh(), 0.5)],
        "repeated_pair": [vote("said twice", a, b), vote("said twice", a, b)],
        "both_orders": [vote("turned", a, b), vote("turned", b, a, 0.0)],
        "contradictory_votes": [vote("divided", c, d), vote("divided", c, d, 0.0)],
        "lookalikes": [vote("twins", picture(twin), picture(twin, format="JPEG", quality=95))],
        "re_encoded_pair": [vote("again", e, f), vote("again", e_again, f_again)],
        "re_encoded_contradiction": [vote("against", e, f), vote("against", e_again, f_again, 0.0)],
        "same_image": [vote("one and the same", a, a)],
        "broken_image": [vote("cut off", a, b[: len(b) // 2]), vote("junk", b"no picture", b)],
        "empty_image": [vote("nothing", a, b"")],
        "empty_caption": [vote("  ", a, b), vote(None, a, b)],
        "no_label": [vote("unlabelled", a, b, label_0=nan, label_1=nan)],
        "contradictory_labels": [vote("both won", a, b, label_1=1.0)],
        "upscaled": [vote("small", fresh(width=16, height=16), fresh(width=16, height=16))],
        "crop_loss": [vote("wide", fresh(width=96), fresh(width=96))],
        "unequal_sizes": [vote("unequal", fresh(), fresh(width=40, height=40))],
        "long_prompt": [vote("word " * 60, fresh(), fresh())],
        "leaked_prompt": [vote("A  cat, on a MAT!", fresh(), fresh())],
    }


IMPLIED = {
    "both_orders": {"repeated_pair"},
    "contradictory_votes": {"repeated_pair"},
    "re_encoded_contradiction": {"re_encoded_pair"},
}
HELD_OUT = {"untouched": ["a cat on a mat", "something else"]}


def look(path: Path, **expected: Any) -> Audit:
    return audit(read_audit_rows(pickapic_source(path)), Expected(SIZE, held_out=HELD_OUT, **expected))


def names(found: Audit) -> dict[str, int]:
    return {one.name: one.count for one in found.findings}


def test_sound_pairs_have_no_findings(tmp_path: Path) -> None:
    found = look(write(tmp_path / "pairs.parquet", clean()))
    assert names(found) == {}
    assert found.facts["rows"] == found.facts["pairs"] == 8 and found.facts["images"] == 16


@pytest.mark.parametrize("name", list(planted()))
def test_each_defect_is_named_and_nothing_else(tmp_path: Path, name: str) -> None:
    found = look(write(tmp_path / "pairs.parquet", [*clean(3), *planted()[name], *clean(3)]))
    assert set(names(found)) == {name} | IMPLIED.get(name, set())
    (one,) = (one for one in found.findings if one.name == name)
    assert one.examples and re.search(r"pairs\.parquet, rows? 3\b", " ".join(example.where for example in one.examples))


def turned() -> dict[str, tuple[list[dict[str, Any]], set[str]]]:
    """The same defects in less usual clothes: rows, and all that must be found."""
    a, b = fresh(), fresh()
    number = next(NUMBERS)
    e, f = picture(number), picture(number + 500_000)
    e_again, f_again = (
        picture(number, format="JPEG", quality=95), picture(number + 500_000, format="JPEG", quality=95),
    )  # fmt: skip
    return {
        "both orders, both first ones won": (
            [vote("x", a, b), vote("x", b, a)], {"repeated_pair", "both_orders", "contradictory_votes"},
        ),
        "encoded anew and turned, the same winner": (
            [vote("x", e, f), vote("x", f_again, e_again, 0.0)], {"re_encoded_pair"},
        ),
        "encoded anew and turned, the other winner": (
            [vote("x", e, f), vote("x", f_again, e_again)], {"re_encoded_pair", "re_encoded_contradiction"},
        ),
        "the same pixels in another file": (
            [vote("x", e, picture(number, compress_level=0))], {"lookalikes"},
        ),
        "a prompt of wide and zero-width spaces": ([vote("\u3000 \u200b", a, b)], {"empty_caption"}),
        "the same pair for two prompts": ([vote("x", a, b), vote("y", a, b)], set()),
        "one image in two pairs": ([vote("x", a, b), vote("x", a, fresh())], set()),
        "a tie beside a vote": ([vote("x", a, b), vote("x", a, b, 0.5)], {"tie", "repeated_pair"}),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(turned()))
def test_defects_are_known_in_other_clothes(tmp_path: Path, name: str) -> None:
    rows, expected = turned()[name]
    found = look(write(tmp_path / "pairs.parquet", [*clean(3), *rows, *clean(3)]))
    assert set(names(found)) == expected


def test_all_of_them_at_once_are_counted(tmp_path: Path) -> None:
    rows = [*clean(), *(row for rows in planted().values() for row in rows), *clean()]
    path = write(tmp_path / "pairs.parquet", rows)
    found = look(path)
    assert names(found) == {
        "tie": 1, "repeated_pair": 3, "both_orders": 1, "contradictory_votes": 1, "lookalikes": 1,
        "re_encoded_pair": 2, "re_encoded_contradiction": 1, "same_image": 1, "broken_image": 2, "empty_image": 1,
        "empty_caption": 2, "no_label": 1, "contradictory_labels": 1, "upscaled": 2, "crop_loss": 2,
        "unequal_sizes": 1, "long_prompt": 1, "leaked_prompt": 1,
    }  # fmt: skip
    lost = sum(one.count for one in found.findings if one.weight == "lost")
    assert found.facts["sound_rows"] == len(rows) - lost
    json.dumps(found.to_dict())


def test_a_set_without_a_sound_row_is_told_of_too(tmp_path: Path) -> None:
    found = look(write(tmp_path / "pairs.parquet", [vote("nothing", b"", b""), vote("junk", b"no", b"picture")]))
    assert names(found) == {"empty_image": 1, "broken_image": 1} and found.facts["images"] == 0
    assert "no image bytes" in page("none", found, None)


def test_all_are_counted_and_a_few_are_shown(tmp_path: Path) -> None:
    """A report of a million rows is no longer than one of ten."""
    a, b = fresh(), fresh()
    rows = [vote(f"tied {i}", fresh(), fresh(), 0.5) for i in range(10)]
    rows += [vote(f"nothing {i}", a, b"") for i in range(9)]
    rows += [vote("many votes", a, b, float(i % 2)) for i in range(200)]
    found = look(write(tmp_path / "pairs.parquet", rows, group=7))
    counts = {"tie": 10, "empty_image": 9, "repeated_pair": 1, "contradictory_votes": 1}
    assert names(found) == counts
    shown = {one.name: [example.note for example in one.examples] for one in found.findings}
    assert shown["empty_image"] == ["image 1"] * 6 and len(shown["tie"]) == 6
    assert shown["repeated_pair"] == ["100 : 100 votes in 200 rows"]
    html = page("many", found, None)
    assert html.count("The first 6 are shown.") == 2 and "10 of 210 rows" in html


def test_tokens_are_counted_by_the_models_tokenizer_where_it_is_here(tmp_path: Path) -> None:
    def count(prompts: Sequence[str]) -> list[int]:
        return [2 + len(prompt) for prompt in prompts]

    path = write(tmp_path / "pairs.parquet", [vote("a" * 8, fresh(), fresh()), vote("a" * 9, fresh(), fresh())])
    found = look(path, tokens=count, longest=10)
    (one,) = found.findings
    assert (one.name, one.count, one.examples[0].note) == ("long_prompt", 1, "11 tokens")


def test_the_votes_tell_how_often_a_vote_is_wrong(tmp_path: Path) -> None:
    """Planted: each vote is flipped with probability 0.2."""
    flips = np.random.default_rng(0).random((1500, 2)) < 0.2
    pool = [(fresh(), fresh()) for _ in range(8)]
    rows = [vote(f"p{i}", *pool[i % 8], float(not wrong)) for i, pair in enumerate(flips) for wrong in pair]
    rows += [vote("p0", *pool[0], 0.5)] * 3  # ties say nothing about errors
    found = look(write(tmp_path / "pairs.parquet", rows, group=500))
    assert found.noise["pairs"] == 1500
    assert found.noise["error"] == pytest.approx(0.2, abs=0.03)


def test_margins_say_how_often_the_reward_agrees(tmp_path: Path) -> None:
    rows = [vote(f"p{i}", fresh(), fresh()) for i in range(8)] + [vote("t", fresh(), fresh(), 0.5)]
    table = read_pickapic(write(tmp_path / "pairs.parquet", rows), ties="keep")
    winner = torch.tensor([1.0, 2, 3, 4, 5, 0, 7, 3, 0])
    loser = torch.tensor([0.0, 0, 0, 0, 0, 6, 0, 3, 9])
    found = margins_of("judge", table, winner, loser, ScoreStats(0, 9, 18))
    assert found is not None
    assert (found.pairs, found.agreement) == (8, 6.5 / 8), "ties aren't counted, equal scores count half"
    assert found.low < found.agreement < found.high
    assert found.against == [5] and sum(found.counts) == 8
    assert found.by_size == [0.75, 1.0, 1.0, 0.5]


def test_the_page_needs_nothing_and_runs_nothing(tmp_path: Path) -> None:
    """Strangers' words are shown, not obeyed; pictures are drawn anew."""
    attack = '<script>alert(1)</script>"><img src=x onerror=alert(2)> {{ 7*7 }}'
    stowaway = b"<script>alert(3)</script>"
    rows = [
        vote(attack, fresh() + stowaway, fresh(), 0.5),
        vote("leak", fresh() + stowaway, fresh()[:60]),
        *clean(2),
    ]
    path = write(tmp_path / "<b>pairs.parquet", rows)
    book = read_audit_rows(pickapic_source(path))
    html = page("<i>name</i>", audit(book, Expected(64)), book.picture)
    assert "<code>ties: drop</code> leaves out" in html and "`" not in html
    assert "<script" not in html and "onerror=alert(2)&gt;" in html and "&lt;i&gt;name" in html
    assert "<b>pairs" not in html and "{{ 7*7 }}" in html
    assert html.count("data:image/png;base64,") >= 2 and "c2NyaXB0" not in html
    assert "default-src 'none'" in html
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html) and "url(" not in html


def test_prints_are_remembered_and_images_not_decoded_again(tmp_path: Path, monkeypatch: Any) -> None:
    path = write(tmp_path / "pairs.parquet", clean(4))
    first = read_audit_rows(pickapic_source(path), cache=tmp_path)
    monkeypatch.setattr("smpo.data.pairs.index.decode", lambda data: pytest.fail("decoded again"))
    again = read_audit_rows(pickapic_source(path), cache=tmp_path)
    assert list(again) == list(first) and (again.sizes == first.sizes).all()


def test_crops_are_compared_with_buckets_and_without(tmp_path: Path) -> None:
    rows = [vote("wide", fresh(width=64), fresh(width=64)), *clean(1)]
    path, sizes = write(tmp_path / "pairs.parquet", rows), [(32, 32), (24, 40)]
    plain, chosen = look(path, sizes=sizes), look(path, sizes=sizes, bucketed=True)
    assert plain.crops is not None and chosen.crops is not None
    assert (plain.crops.used, chosen.crops.used) == (False, True)
    assert plain.crops.lost_as_square == pytest.approx(0.25), "half of the wide pair, nothing of the other"
    wide = chosen.crops.buckets[1]
    assert (wide.height, wide.width, wide.pairs) == (24, 40, 1)
    assert wide.lost == pytest.approx(1 - (40 / 24) / 2) and wide.lost_as_square == pytest.approx(0.5)
    assert names(plain) == {"crop_loss": 2} and names(chosen) == {}
    assert "24" in page("t", chosen, None) and "What is cut away" in page("t", plain, None)
    assert look(write(tmp_path / "square.parquet", clean())).crops is None
