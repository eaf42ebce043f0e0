"""Which files are read: splits by the words of `datasets`, links, and numbered series that aren't whole."""

import shutil
from pathlib import Path

import pytest

from smpo.data.sources.parquet import files_below, find_files, missing_files
from smpo.errors import MachineError


def made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


SEVERAL = {
    "train and val": ("train.parquet", "val.parquet"),
    "numbers": ("train_0.parquet", "eval_0.parquet"),
    "behind a name": ("mine_train.parquet", "mine_test.parquet"),
    "capitals": ("Train.parquet", "Test.parquet"),
    "behind a number": ("0000_train.parquet", "0000_validation.parquet"),
    "folders": ("train/a.parquet", "val/a.parquet", "eval/a.parquet"),
    "dots": ("data.train.parquet", "data.dev.parquet"),
    "shards": ("train-00000-of-00001.parquet", "test_unique-00000-of-00001.parquet"),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_a_folder_of_several_splits_needs_a_choice(case: str, tmp_path: Path) -> None:
    made(tmp_path, *SEVERAL[case])
    with pytest.raises(MachineError, match="holds several splits") as caught:
        find_files(tmp_path)
    assert "`split: " in str(caught.value.help)
    assert len(find_files(tmp_path, "train")) == 1


@pytest.mark.parametrize(
    "names", [("a.parquet", "b.parquet"), ("trainers.parquet", "contest.parquet"), ("x/1.parquet", "y/2.parquet")]
)
def test_other_names_are_no_splits(names: tuple[str, ...], tmp_path: Path) -> None:
    assert len(find_files(made(tmp_path, *names))) == 2


def test_both_unique_splits_of_pick_a_pic_are_splits_of_their_own(tmp_path: Path) -> None:
    made(tmp_path, "validation-00000-of-00001.parquet", "validation_unique-00000-of-00001.parquet")
    assert [file.name for file in find_files(tmp_path, "validation_unique")] == [
        "validation_unique-00000-of-00001.parquet"
    ]
    assert [file.name for file in find_files(tmp_path, "validation")] == ["validation-00000-of-00001.parquet"]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    made(tmp_path / "elsewhere", "train-00001-of-00002.parquet")
    made(tmp_path / "d", "a/train-00000-of-00002.parquet")
    (tmp_path / "d" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "d" / "a" / "loop").symlink_to(tmp_path / "d")
    found = find_files(tmp_path / "d")
    assert [Path(str(file)).name for file in found] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert missing_files(found) == 0
    shutil.rmtree(tmp_path / "elsewhere")
    assert missing_files(find_files(tmp_path / "d")) == 1
    assert files_below(tmp_path / "d", ".tar") == []
