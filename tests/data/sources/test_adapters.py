"""What every format must do: the same pairs become the same table, defects are dropped and listed, pictures are found
again by content, and nothing outside the data's folder is opened."""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smpo.components.adapters import (
    ChosenRejected,
    HPDv2,
    HPDv3,
    ImageFolder,
    ImageRewardDB,
    WebDataset,
)  # fmt: skip
from smpo.components.datasets import PickAPic, PlacedData
from smpo.data.pairs.table import read_pairs
from smpo.data.sources.formats import of_ranking
from smpo.errors import MachineError, SmpoError
from smpo.imaging import content_id
from smpo.kinds import Runtime
from tests.data.layouts import (
    DEFECTS,
    FORMATS,
    PAIRS,
    A,
    B,
    C,
    D,
    F,
    Rows,
    files,
    hpdv3,
    imagefolder,
    member,
    pickapic,
    tar,
)
from tests.data.worlds import jpeg, vote, write


@pytest.fixture(params=FORMATS, ids=lambda make: make.__name__.strip("_"))
def make(request: Any) -> Callable[[Path, Rows], PlacedData]:
    return request.param  # type: ignore[no-any-return]


def stated(table: Any) -> list[tuple[str, str, str, float, int]]:
    pairs = [table[i] for i in range(len(table))]
    return [(pair.prompt, pair.winner, pair.loser, pair.share, pair.votes) for pair in pairs]


def test_the_same_pairs_become_the_same_table(make: Any, tmp_path: Path) -> None:
    data = make(tmp_path / "set", PAIRS)
    assert data.check() is None
    table = data.load(Runtime(cache=tmp_path / "cache"), tmp_path / "report.json")
    assert stated(table) == [(p, content_id(w), content_id(x), 1.0, 1) for p, w, x in PAIRS]
    assert table.digest == pickapic(tmp_path / "other", PAIRS).load(Runtime(cache=tmp_path / "cache")).digest
    assert table.picture(content_id(D)).size == (24, 16)
    with pytest.raises(KeyError):
        table.picture("f" * 32)


def test_defects_are_dropped_by_pair_and_listed(make: Any, tmp_path: Path) -> None:
    data = make(tmp_path / "set", [PAIRS[0], *DEFECTS, PAIRS[1]]).model_copy(update={"max_broken": 1.0})
    table = data.load(Runtime(cache=tmp_path / "cache"), tmp_path / "report.json")
    assert [pair[0] for pair in stated(table)] == ["a cat", "a dog"]
    report = json.loads((tmp_path / "report.json").read_text())
    reasons = [one["reason"] for one in report["defects"]]
    assert reasons[:3] == ["broken_image", "same_image", "empty_caption"]
    assert reasons[3:] in (["empty_image"], ["missing_image"])
    assert table.report["rows"] == 6 == table.report["votes"] + sum(table.report["dropped"].values())


def test_the_second_reading_decodes_nothing(make: Any, tmp_path: Path, monkeypatch: Any) -> None:
    data = make(tmp_path / "set", PAIRS)
    first = data.load(Runtime(cache=tmp_path / "cache"))
    monkeypatch.setattr("smpo.data.pairs.index.decode", lambda content: pytest.fail("decoded again"))
    again = data.load(Runtime(cache=tmp_path / "cache"))
    assert again.digest == first.digest
    assert again.picture(content_id(F)).size == (24, 16)


def test_what_is_not_there_is_said_before_anything_is_read(make: Any, tmp_path: Path) -> None:
    data = make(tmp_path / "set", PAIRS).model_copy(update={"path": str(tmp_path / "nowhere")})
    assert "there is no" in (data.check() or "")
    with pytest.raises(SmpoError):
        data.load(Runtime(cache=tmp_path / "cache"))


def test_a_picture_that_changes_on_disk_is_read_anew_or_refused(tmp_path: Path) -> None:
    data = imagefolder(tmp_path / "set", PAIRS)
    table = data.load(Runtime(cache=tmp_path / "cache"))
    (tmp_path / "set" / "pics" / "0w.jpg").write_bytes(jpeg(77))
    with pytest.raises(SmpoError, match="has changed on disk"):
        table.picture(content_id(A))
    assert data.load(Runtime(cache=tmp_path / "cache"))[0].winner == content_id(jpeg(77))


@pytest.mark.parametrize(
    "path", ["../secret.jpg", "/etc/passwd", "pics/../../secret.jpg", "..\\secret.jpg", "C:/x.jpg"]
)
def test_paths_that_leave_the_folder_are_not_opened(tmp_path: Path, path: str) -> None:
    data = imagefolder(tmp_path / "set", PAIRS)
    (tmp_path / "secret.jpg").write_bytes(D)
    record = {"prompt": "escape", "chosen_file_name": "pics/0w.jpg", "rejected_file_name": path}
    with (tmp_path / "set" / "metadata.jsonl").open("a") as stream:
        stream.write(json.dumps(record) + "\n")
    table = data.model_copy(update={"max_broken": 1.0}).load(Runtime(cache=tmp_path / "cache"))
    assert len(table) == 3 and table.report["dropped"] == {"foreign_path": 1}


def with_record(folder: Path, prompt: str, rejected: str) -> dict[str, int]:
    """What becomes of one more record."""
    data = imagefolder(folder / "set", PAIRS)
    record = {"prompt": prompt, "chosen_file_name": "pics/0w.jpg", "rejected_file_name": rejected}
    with (folder / "set" / "metadata.jsonl").open("a") as stream:
        stream.write(json.dumps(record) + "\n")
    table = data.model_copy(update={"max_broken": 1.0}).load(Runtime(cache=folder / "cache"))
    return {**table.report["dropped"], "sound": len(table)}


def test_half_a_character_is_a_defect_of_its_row(tmp_path: Path) -> None:
    assert with_record(tmp_path / "a", "a cat \ud800", "pics/0l.jpg") == {"broken_text": 1, "sound": 3}
    assert with_record(tmp_path / "b", "a cat", "pics/\ud800.jpg") == {"broken_text": 1, "sound": 3}


def test_a_path_that_names_no_file_is_a_defect_of_its_row(tmp_path: Path) -> None:
    assert with_record(tmp_path / "a", "a cat", ".") == {"foreign_path": 1, "sound": 3}
    assert with_record(tmp_path / "b", "a cat", "pics") == {"missing_image": 1, "sound": 3}
    (tmp_path / "c" / "set" / "pics").mkdir(parents=True)
    os.mkfifo(tmp_path / "c" / "set" / "pics" / "pipe.jpg")
    assert with_record(tmp_path / "c", "a cat", "pics/pipe.jpg") == {"missing_image": 1, "sound": 3}
    (tmp_path / "d" / "set" / "pics").mkdir(parents=True)
    (tmp_path / "d" / "set" / "pics" / "zero.jpg").symlink_to("/dev/zero")
    assert with_record(tmp_path / "d", "a cat", "pics/zero.jpg") == {"missing_image": 1, "sound": 3}


def test_a_colon_in_a_name_is_no_drive(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "12:30 a.jpg").write_bytes(D)
    assert with_record(tmp_path, "a cat", "12:30 a.jpg") == {"sound": 4}


def test_captions_of_a_tar_have_an_encoding(tmp_path: Path) -> None:
    data = tar(tmp_path / "set", PAIRS)
    with tarfile.open(tmp_path / "set" / "shard-001.tar", "w") as archive:
        for key, caption in (("0008", b"\xef\xbb\xbfa marked cat"), ("0009", b"a caf\xe9")):
            member(archive, f"{key}.txt", caption)
            member(archive, f"{key}.chosen.jpg", A)
            member(archive, f"{key}.rejected.jpg", D)
    table = data.model_copy(update={"max_broken": 1.0}).load(Runtime(cache=tmp_path / "cache"))
    assert table.report["dropped"] == {"broken_text": 1}
    assert "a marked cat" in {table[row].prompt for row in range(len(table))}


def test_a_table_of_another_kind_names_those_that_are_read(tmp_path: Path) -> None:
    from smpo.data.sources.records import read_records

    (tmp_path / "metadata.csv").write_text("file_name,prompt\n")
    with pytest.raises(MachineError, match="no list of records") as caught:
        list(read_records(tmp_path / "metadata.csv"))
    assert "JSON lines" in str(caught.value.help)


def test_an_archive_can_write_and_link_nowhere(tmp_path: Path) -> None:
    data = tar(tmp_path / "set", PAIRS)
    with tarfile.open(tmp_path / "set" / "shard-001.tar", "w") as archive:
        member(archive, "../../0009.txt", b"climbs out")
        member(archive, "../../0009.chosen.jpg", A)
        link = tarfile.TarInfo("../../0009.rejected.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    table = data.model_copy(update={"max_broken": 1.0}).load(Runtime(cache=tmp_path / "set"))
    assert table.report["dropped"] == {"empty_image": 1}
    assert [p for p in sorted(tmp_path.rglob("*")) if p not in before and "pairs" not in p.parts] == []


def test_broken_archives_are_said_in_words(tmp_path: Path) -> None:
    data = tar(tmp_path / "set", PAIRS)
    (tmp_path / "set" / "shard-000.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(MachineError, match="can't be read as a tar"):
        data.load(Runtime(cache=tmp_path / "cache"))


def test_votes_become_shares(tmp_path: Path) -> None:
    """HPDv3's counts, columns of counts, columns of shares, and JSON beside images say the same."""
    listed = files(tmp_path / "three", PAIRS)
    counts: list[Any] = [[9, 3], [4, 4], [5, 0]]
    records = [
        {"prompt": p, "choice_dist": c, "confidence": 0.9 + i / 20, "path1": w, "path2": x}
        for i, ((p, w, x), c) in enumerate(zip(listed, counts, strict=True))
    ]
    (tmp_path / "three" / "train.json").write_text(json.dumps(records))
    three = HPDv3(path=str(tmp_path / "three"), ties="keep").load(Runtime(cache=tmp_path / "cache"))
    assert [(pair[3], pair[4]) for pair in stated(three)] == [(0.75, 12), (0.5, 8), (1.0, 5)]
    sure = HPDv3(path=str(tmp_path / "three"), min_confidence=0.93).load(Runtime(cache=tmp_path / "cache"))
    assert sure.report["dropped"] == {"low_confidence": 1, "tie": 1} and len(sure) == 1

    rows = [
        {"prompt": p, "chosen": w, "rejected": x, "n1": c[0], "n2": c[1], "part": c[0] / sum(c), "n": sum(c)}
        for (p, w, x), c in zip(PAIRS, counts, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "votes.parquet")
    for columns in ({"for_chosen": "n1", "for_rejected": "n2"}, {"share": "part", "votes": "n"}):
        data = ChosenRejected(path=str(tmp_path / "votes.parquet"), ties="keep", columns=columns)
        assert stated(data.load(Runtime(cache=tmp_path / "cache"))) == stated(three)

    with tarfile.open(tmp_path / "votes.tar", "w") as archive:
        for number, row in enumerate(rows):
            told = {name: row[name] for name in ("prompt", "n1", "n2")}
            member(archive, f"{number}.chosen.jpg", row["chosen"])
            member(archive, f"{number}.json", json.dumps(told).encode())
            member(archive, f"{number}.rejected.jpg", row["rejected"])
    columns = {"prompt": "json:prompt", "for_chosen": "n1", "for_rejected": "n2"}
    tar = WebDataset(path=str(tmp_path / "votes.tar"), ties="keep", columns=columns)
    assert stated(tar.load(Runtime(cache=tmp_path / "cache"))) == stated(three)


def test_a_vote_count_against_the_preferred_image_is_a_contradiction(tmp_path: Path) -> None:
    ((prompt, first, second),) = files(tmp_path, PAIRS[:1])
    record = {"prompt": prompt, "choice_dist": [1, 4], "confidence": 1, "path1": first, "path2": second}
    (tmp_path / "train.json").write_text(json.dumps([record, {**record, "choice_dist": [4, 1]}]))
    table = HPDv3(path=str(tmp_path), max_broken=1).load(Runtime(cache=tmp_path / "cache"))
    assert table.report["dropped"] == {"contradictory_labels": 1}


def test_annotators_rankings_are_counted_pair_by_pair(tmp_path: Path) -> None:
    """HPDv2's test.json: image 0 beats image 1 for two of three, and so on."""
    (tmp_path / "test").mkdir()
    for name, data in (("a.jpg", A), ("b.jpg", B), ("c.jpg", C)):
        (tmp_path / "test" / name).write_bytes(data)
    ballots = [[1, 2, 3], [2, 1, 3], [1, 2, 2]]
    record = {
        "prompt": "x", "image_path": ["a.jpg", "b.jpg", "c.jpg"], "rank": [1, 2, 3],
        "raw_annotations": [{"rank": ranks, "user_hash": "u"} for ranks in ballots],
    }  # fmt: skip
    (tmp_path / "test.json").write_text(json.dumps([record]))
    data = HPDv2(path=str(tmp_path), annotations="test.json", images="test")
    found = {(w, x): (share, n) for _, w, x, share, n in stated(data.load(Runtime(cache=tmp_path / "cache")))}
    a, b, c = (content_id(data) for data in (A, B, C))
    assert found == {
        (a, b): (pytest.approx(2 / 3), 3), (a, c): (1.0, 3), (b, c): (pytest.approx(2.5 / 3), 3),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("all", {(0, 1): 1.0, (0, 2): 1.0, (0, 3): 1.0, (1, 2): 0.5, (1, 3): 1.0, (2, 3): 1.0}),
        ("neighbours", {(0, 1): 1.0, (0, 2): 1.0, (1, 3): 1.0, (2, 3): 1.0}),
        ("extremes", {(0, 3): 1.0}),
    ],
)
def test_which_pairs_of_a_ranking(which: Any, expected: dict[tuple[int, int], float]) -> None:
    assert {(i, j): told.share for i, j, told in of_ranking([1, 2, 2, 5], which)} == expected


def test_hub_ids_are_fetched_and_offline_is_said_in_words(tmp_path: Path, monkeypatch: Any) -> None:
    data = PickAPic(path="somebody/pickapic", revision="abc")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE forbids fetching" in (data.check() or "")
    write(tmp_path / "snapshot" / "train.parquet", [vote(*row) for row in PAIRS])
    asked: list[Any] = []

    def download(repo: str, **wanted: Any) -> str:
        asked.append((repo, wanted))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert len(data.load(Runtime(cache=tmp_path / "cache"))) == 3
    assert asked == [
        ("somebody/pickapic", {"repo_type": "dataset", "revision": "abc", "allow_patterns": ["*.parquet"]})
    ]

    def unreachable(repo: str, **wanted: Any) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(MachineError, match="can't be fetched: no route to host") as caught:
        data.load(Runtime(cache=tmp_path / "cache"))
    assert "data.path=FOLDER" in (caught.value.help or "")


def test_checking_needs_no_torch(tmp_path: Path) -> None:
    """`smpo plan` checks every recipe, and must be quick."""
    tar(tmp_path / "set", PAIRS)
    imagefolder(tmp_path / "folder", PAIRS)
    code = (
        "import sys; from smpo.components.adapters import *; "
        "print([d.check() for d in (WebDataset(path=sys.argv[1]), ImageFolder(path=sys.argv[2]))], "
        "[name for name in ('torch', 'PIL') if name in sys.modules])"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "set"), str(tmp_path / "folder")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "[None, None] []\n"


def test_a_limit_stops_early(tmp_path: Path) -> None:
    data = tar(tmp_path / "set", PAIRS)
    assert len(read_pairs(data.source(), limit=2)) == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "told", "remedy"),
    [
        ({"path": "nowhere"}, "no preference data at", "--set data.path=FOLDER"),
        ({"path": "pickapic"}, "several splits: train, validation", "split: train"),
        ({"path": "pickapic", "split": "test"}, "no split `test`", "choose one of these"),
        (
            {"path": "pickapic/train.parquet", "columns": {"chosen": "jpg_0"}},
            "lacks the column",
            "these columns",
        ),
    ],
)
def test_what_is_wrong_is_found_by_a_cheap_look_and_told_with_its_remedy(
    tmp_path: Path, settings: dict[str, Any], told: str, remedy: str
) -> None:
    for split in ("train", "validation"):
        write(tmp_path / "pickapic" / f"{split}.parquet", [vote(*row) for row in PAIRS])
    settings["path"] = str(tmp_path / settings["path"])
    data = ChosenRejected(**settings) if "columns" in settings else PickAPic(**settings)
    assert told in str(data.check())
    assert remedy in data.remedy()


def test_annotations_that_are_elsewhere_are_asked_for_by_name(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("")
    data = ImageFolder(path=str(tmp_path))
    assert data.check() == f"there is no file `metadata.jsonl` in {tmp_path}"
    assert data.remedy() == "name it in `data.annotations`; here are pairs.jsonl"
    data = ImageFolder(path=str(tmp_path), annotations="pairs.jsonl")
    assert data.check() is None
    assert HPDv2(path=str(tmp_path), annotations="pairs.jsonl").check() == f"there is no folder `train` in {tmp_path}"


@pytest.mark.parametrize(
    ("made", "read", "told"),
    [
        ("hpdv2", HPDv3, "has `path1` or `path2`"),
        ("hpdv3", partial(HPDv2, images="."), "has `image_path`"),
        ("hpdv3", ImageRewardDB, "has `generations` or `ranking`"),
        ("ranked_folder", ImageFolder, "has `chosen_file_name` or `rejected_file_name`"),
        ("imagefolder", partial(ImageFolder, rank="place"), "has `file_name` or `place`"),
        ("imagefolder", partial(ImageFolder, columns={"share": "shares"}), "has `shares`"),
    ],
)
def test_records_of_another_format_are_refused_by_the_entries_they_lack(
    tmp_path: Path, made: str, read: Any, told: str
) -> None:
    next(make for make in FORMATS if make.__name__ == made)(tmp_path, PAIRS)
    data = read(path=str(tmp_path))
    assert told in str(data.check())
    assert "its records have" in data.remedy() and "prompt" in data.remedy()


def test_one_record_without_a_picture_is_one_defect(tmp_path: Path) -> None:
    data = hpdv3(tmp_path, [*PAIRS, ("a bird", A, C), ("a cow", B, D), ("a hen", C, F)])
    records = json.loads((tmp_path / "train.json").read_text())
    del records[0]["path2"]
    (tmp_path / "train.json").write_text(json.dumps(records))
    assert data.check() is None
    data.load(Runtime(cache=tmp_path / "cache"), tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["dropped"] == {"missing_image": 1}
    assert report["defects"][0]["detail"] == "the record names none"
