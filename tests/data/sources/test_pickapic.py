"""Every planted defect is found, counted and listed, and takes its whole pair with it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smpo.data.pairs.pickapic import read_pickapic
from smpo.data.sources.pickapic import count_rows
from smpo.errors import MachineError, RunError
from smpo.imaging import content_id
from tests.data.worlds import jpeg, vote, write

A, B, C, D = (jpeg(number) for number in range(4))
NAN = float("nan")


def defective() -> list[dict[str, Any]]:
    """Sound rows with a defect after each."""
    return [
        vote("a cat", A, B),
        vote("a cat", A, jpeg(9)[:300]),  # truncated
        vote("a dog", C, D, 0.0),
        vote("a dog", b"not a picture", D),
        vote("a dog", C, b""),
        vote("a bird", A, D),
        vote("a bird", A, D, jpg_0=None),
        vote("  ", A, B),
        vote(None, A, B),
        vote("a fish", B, C),
        vote("a fish", B, B),
        vote("a fish", A, C, label_0=NAN, label_1=NAN, has_label=False),
        vote("a fish", A, C, label_0=None, label_1=None, has_label=False),
        vote("a fish", A, C, label_1=1.0),
        vote("a fish", A, C, label_0=2.0, label_1=-1.0),
        vote("a fish", A, D, label_0=0.0, label_1=1.0),  # best_image_uid says otherwise
        vote("a tie", A, C, 0.5),
    ]


def test_each_defect_drops_its_row_with_both_images(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.parquet", defective())
    table = read_pickapic(path, max_broken=0.9, report=tmp_path / "report.json")
    assert [(pair.prompt, pair.winner, pair.loser) for pair in (table[i] for i in range(len(table)))] == [
        ("a cat", content_id(A), content_id(B)),
        ("a dog", content_id(D), content_id(C)),
        ("a bird", content_id(A), content_id(D)),
        ("a fish", content_id(B), content_id(C)),
    ]
    assert table.report["dropped"] == {
        "contradictory_labels": 3,
        "broken_image": 2,
        "empty_image": 2,
        "empty_caption": 2,
        "no_label": 2,
        "same_image": 1,
        "tie": 1,
    }
    assert table.report["rows"] == 17 == table.report["votes"] + sum(table.report["dropped"].values())


def test_the_report_lists_every_defect_with_file_row_and_reason(tmp_path: Path) -> None:
    write(tmp_path / "set" / "b.parquet", defective()[8:])
    write(tmp_path / "set" / "a.parquet", defective()[:8])
    table = read_pickapic(tmp_path / "set", max_broken=0.9, report=tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    listed = report.pop("defects")
    assert report == json.loads(json.dumps(table.report))
    assert len(listed) == 12
    assert listed[0] == {
        "file": "a.parquet", "row": 1, "reason": "broken_image", "detail": "image 1: truncated",
    }  # fmt: skip
    assert {"file": "b.parquet", "row": 2, "reason": "same_image", "detail": content_id(B)} in listed


def test_too_many_defects_stop_the_run_with_numbers_reasons_and_the_report(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.parquet", defective())
    with pytest.raises(RunError) as caught:
        read_pickapic(path, report=tmp_path / "report.json")
    assert "12 of 17 rows" in caught.value.message
    assert "3 x labels that contradict each other" in caught.value.message
    assert str(tmp_path / "report.json") in (caught.value.help or "")
    assert (tmp_path / "report.json").exists()


def test_lazy_verification_trusts_images_until_they_are_used(tmp_path: Path) -> None:
    broken = A[: len(A) // 2]
    path = write(tmp_path / "pairs.parquet", [vote("a", broken, B)])
    table = read_pickapic(path, verify="lazy")
    assert table.picture(content_id(B)).size == (24, 16)
    with pytest.raises(RunError, match=f"{content_id(broken)} can't be decoded: truncated"):
        table.picture(content_id(broken))


def test_votes_on_a_pair_are_counted_in_either_order(tmp_path: Path) -> None:
    rows = [
        vote("x", A, B, 0.0),
        vote("y", A, B),
        vote("x", B, A, 1.0),
        vote("x", A, B, 1.0),
        vote("x", B, C),
    ]
    table = read_pickapic(write(tmp_path / "pairs.parquet", rows))
    first = table[0]
    assert (first.winner, first.loser) == (content_id(B), content_id(A))
    assert (first.share, first.votes) == (pytest.approx(2 / 3), 3)
    assert table.report["votes_per_pair"] == {"1": 2, "3": 1}
    assert table.report["agreement"] == pytest.approx(2 / 3)
    apart = read_pickapic(write(tmp_path / "pairs.parquet", rows), votes="separate")
    assert len(apart) == 5 and len({apart[i].id for i in range(5)}) == 5
    assert {apart[i].share for i in range(5)} == {1.0}


def test_ties_are_dropped_or_kept_in_storage_order(tmp_path: Path) -> None:
    rows = [
        vote("x", A, B),
        vote("x", A, B, 0.0),
        vote("y", C, D, 0.5),
        vote("z", C, D),
        vote("z", C, D, 0.5),
    ]
    path = write(tmp_path / "pairs.parquet", rows)
    dropped = read_pickapic(path)
    assert len(dropped) == 1 and dropped[0].share == 0.75
    assert dropped.report["dropped"] == {"tie": 3}
    kept = read_pickapic(path, ties="keep")
    assert [kept[i].share for i in range(3)] == [0.5, 0.5, 0.75]
    assert [kept[i].winner for i in range(2)] == [content_id(A), content_id(C)]
    assert (kept.report["ties"], kept.report["tied_pairs"]) == (2, 2)


def test_a_limit_reads_no_further_and_counts_ties_out(tmp_path: Path) -> None:
    rows = [vote("t", A, B, 0.5), *(vote(f"p{i}", A, B) for i in range(9))]
    rows[3:3] = [vote("p1", B, A, 0.0)]
    table = read_pickapic(write(tmp_path / "pairs.parquet", rows), limit=2)
    assert [table[i].prompt for i in range(len(table))] == ["p0", "p1"]
    assert table[1].votes == 2, "a vote right after the last pair was opened still counts"
    assert table.report["rows"] == 4


def test_pictures_come_from_the_right_place(tmp_path: Path) -> None:
    rows = [vote(f"p{i}", jpeg(2 * i), jpeg(2 * i + 1), float(i % 2)) for i in range(20)]
    write(tmp_path / "set" / "a.parquet", rows[:11], group=4)
    write(tmp_path / "set" / "b.parquet", rows[11:], group=100)
    table = read_pickapic(tmp_path / "set")
    table._pictures._capacity = 5_000  # two columns or so: everything else is read again
    for i in [*range(20), 3, 17, 0]:
        pair = table[i]
        assert content_id(table._pictures.read(*_place(table, pair.winner))) == pair.winner
        assert table.picture(pair.loser).size == (24, 16)
    with pytest.raises(KeyError):
        table.picture("f" * 32)
    with pytest.raises(KeyError):
        table.picture("zz")


def _place(table: Any, image: str) -> tuple[int, ...]:
    number = list(table._counted.images).index(np.void(bytes.fromhex(image)))
    file, group, side, row = table._counted.places[number].tolist()
    return file, group, side, row


def test_images_as_structs_are_read_too(tmp_path: Path) -> None:
    """`datasets` writes images as {bytes, path}."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [vote("x", A, B), vote("y", C, D, 0.0)]
    for row in rows:
        row.update({side: {"bytes": row[side], "path": None} for side in ("jpg_0", "jpg_1")})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    table = read_pickapic(tmp_path / "pairs.parquet")
    assert table[1].winner == content_id(D)
    assert table.picture(content_id(D)).size == (24, 16)


def test_the_second_reading_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "pairs.parquet", defective())
    seen: list[tuple[int, int]] = []
    first = read_pickapic(
        path, max_broken=1, cache=tmp_path, progress=lambda label, done, total: seen.append((done, total))
    )
    assert seen[-1] == (17, 17)
    monkeypatch.setattr("smpo.data.pairs.index.decode", lambda data: pytest.fail("decoded again"))
    copy = tmp_path / "elsewhere.parquet"  # another name and time stamp, the same content
    copy.write_bytes(path.read_bytes())
    again = read_pickapic(copy, max_broken=1, cache=tmp_path)
    assert again.digest == first.digest and again.report["dropped"] == first.report["dropped"]


def test_a_changed_or_damaged_memory_is_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.parquet", [vote("x", A, B)])
    first = read_pickapic(path, cache=tmp_path)
    (kept,) = (tmp_path / "pairs").glob("*.parquet")
    kept.write_bytes(b"junk")
    assert read_pickapic(path, cache=tmp_path).digest == first.digest
    write(path, [vote("x", A, B, 0.0)])
    assert read_pickapic(path, cache=tmp_path)[0].winner == content_id(B)


def test_the_digest_follows_content(tmp_path: Path) -> None:
    rows = [vote(f"p{i}", jpeg(2 * i), jpeg(2 * i + 1)) for i in range(6)]
    one = read_pickapic(write(tmp_path / "one.parquet", rows))
    write(tmp_path / "two" / "1.parquet", rows[:4], group=2)
    write(tmp_path / "two" / "2.parquet", rows[4:])
    assert read_pickapic(tmp_path / "two").digest == one.digest
    rows[2] = vote("p2", rows[2]["jpg_0"], rows[2]["jpg_1"], 0.0)
    assert read_pickapic(write(tmp_path / "one.parquet", rows)).digest != one.digest


def test_a_pair_keeps_its_id_when_votes_turn_it_round(tmp_path: Path) -> None:
    one = read_pickapic(write(tmp_path / "one.parquet", [vote("x", A, B)]))
    two = read_pickapic(write(tmp_path / "two.parquet", [vote("x", B, A)]))
    assert one[0].id == two[0].id and one[0].winner != two[0].winner


def test_what_is_not_there_is_said_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="no preference data at"):
        read_pickapic(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MachineError, match=r"no \*.parquet file"):
        read_pickapic(tmp_path / "empty")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(MachineError, match="can't be read as parquet"):
        read_pickapic(tmp_path / "cut.parquet")


def test_the_variant_without_images_is_recognised(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = write(tmp_path / "full.parquet", [vote("x", A, B)])
    pq.write_table(pq.read_table(path).drop_columns(["jpg_0", "jpg_1"]), path)
    with pytest.raises(MachineError, match="lacks the columns jpg_0, jpg_1") as caught:
        read_pickapic(path)
    assert "without images" in (caught.value.help or "")


def test_splits_are_not_mixed(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002-ab12.parquet", [vote("x", A, B)])
    write(tmp_path / "train-00001-of-00002-cd34.parquet", [vote("y", A, B)])
    write(tmp_path / "validation_unique-00000-of-00001.parquet", [vote("z", A, B)])
    with pytest.raises(MachineError, match="several splits: train, validation_unique"):
        read_pickapic(tmp_path)
    assert len(read_pickapic(tmp_path, split="train")) == 2
    assert count_rows(tmp_path, "validation_unique") == 1
    with pytest.raises(MachineError, match="no split `test`"):
        read_pickapic(tmp_path, split="test")


def test_a_split_may_be_numbered_without_a_total(tmp_path: Path) -> None:
    for name in ("train-0000", "train_1", "test-0000"):
        write(tmp_path / f"{name}.parquet", [vote(name, A, B)])
    assert len(read_pickapic(tmp_path, split="train")) == 2
    with pytest.raises(MachineError, match="several splits: test, train"):
        read_pickapic(tmp_path)
    write(tmp_path / "other" / "part-0000.parquet", [vote("x", A, B)])
    with pytest.raises(MachineError, match=r"none of its files is called after one \(part-0000.parquet\)") as caught:
        read_pickapic(tmp_path / "other", split="train")
    assert "split: null" in (caught.value.help or "") and count_rows(tmp_path / "other") == 1


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no pair is left of 1 rows"):
        read_pickapic(write(tmp_path / "pairs.parquet", [vote("x", A, B, 0.5)]))


def test_leftovers_of_a_download_are_not_data(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [vote("x", A, B)])
    write(tmp_path / ".cache" / "huggingface" / "test.parquet", [vote("y", A, B)])
    assert count_rows(tmp_path) == 1


def test_what_smpo_keeps_beside_the_data_is_not_data(tmp_path: Path) -> None:
    """`path: .`, and `runs/` appears there: the second run must read what the first one read."""
    write(tmp_path / "pairs.parquet", defective())
    first = read_pickapic(tmp_path, max_broken=0.9, cache=tmp_path / "runs" / "cache")
    assert list((tmp_path / "runs").rglob("*.parquet"))
    assert read_pickapic(tmp_path, max_broken=0.9, cache=tmp_path / "runs" / "cache").digest == first.digest


def test_counting_rows_needs_no_torch(tmp_path: Path) -> None:
    """`smpo plan` counts rows, and must be quick."""
    path = write(tmp_path / "pairs.parquet", [vote("x", A, B)])
    code = (
        "import sys; from pathlib import Path; from smpo.data.sources.parquet import count_rows; "
        "print(count_rows(Path(sys.argv[1])), [name for name in ('torch', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout == "1 []\n"
