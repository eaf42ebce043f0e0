"""Parquet files: which of them, which columns, and pictures read back on request.

Imports no torch, and Arrow only to open a file, so that a recipe can check itself for `smpo plan` at once.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smpo.data.sources.remote import AnyFile, RemoteFile, remote_files
from smpo.errors import MachineError, readable

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["OPTIONAL", "REQUIRED", "WHOLE", "PictureBytes", "count_rows", "find_files", "image_column", "missing_files"]

REQUIRED = ("caption", "jpg_0", "jpg_1", "label_0", "label_1")
OPTIONAL = ("has_label", "best_image_uid", "image_0_uid", "image_1_uid")

WHOLE = "is the file whole, and the one that was there when the run began? fetch it again, or put it back"
"""What to do about a file that can't be read."""

_KEPT = re.compile(r"[0-9a-f]{32}-\w+-v\d+\.parquet")
"""How `smpo.data.pairs.index` names what it knows of a data set."""
_SHARD = re.compile(r"-\d{5}-of-\d{5}.*$")
_OF = re.compile(r"^(?P<name>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<rest>.*)$")
_SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
"""The words by which `datasets` knows a split in the name of a file or folder."""
_UNIQUE = re.compile(r"(validation|test)_unique")
_WORDS = re.compile(r"[a-z]+")


def find_files(path: Path | str, split: str | None = None) -> list[AnyFile]:
    """The parquet files at `path`, a file or a folder, here or at an address, in the order in which they are read (by
    name).

    `split` chooses among files or folders whose names hold its word: `train.parquet`, `mine_train.parquet`,
    `val/0.parquet`, `train-00000-of-00645-….parquet`. A folder of several splits needs a `split`: else evaluation pairs
    would be trained on. Raises `MachineError`."""
    found: Sequence[AnyFile] = remote_files(path, ".parquet") if isinstance(path, str) else _here(path)
    if len(found) == 1 and (isinstance(path, str) or path == found[0]):
        return list(found)
    splits = sorted({name for file in found if (name := _split_of(file)) is not None})
    if split is None:
        if len(splits) > 1:
            raise MachineError(
                f"{path} holds several splits: {', '.join(splits)}",
                help=f"choose one, for example `split: {splits[0]}`",
            )
        return list(found)
    chosen = [file for file in found if _split_of(file) == split]
    if not chosen:
        if not splits:
            names = ", ".join(file.name for file in found[:5])
            raise MachineError(
                f"no split `{split}` under {path}: none of its files is called after one ({names})",
                help="`split: null` reads them all",
            )
        raise MachineError(
            f"no split `{split}` under {path}, only {', '.join(splits)}", help="choose one of these, or none"
        )
    return chosen


def missing_files(files: Sequence[AnyFile]) -> int:
    """Files of numbered series (`-00003-of-00645`) that aren't among these. A part of a set is often meant to be read,
    so this is reported, and no error."""
    series: dict[tuple[str, int], int] = {}
    for file in files:
        if match := _OF.match(file.stem):
            key = match["name"], int(match["count"])
            series[key] = series.get(key, 0) + 1
    return sum(max(0, count - present) for (_, count), present in series.items())


def _here(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.exists():
        raise MachineError(
            f"there is no preference data at {path}",
            help="give the path of a parquet file, or of a folder of them",
        )
    found = [file for file in files_below(path, ".parquet") if not _hidden(file, path)]
    if not found:
        raise MachineError(
            f"no *.parquet file under {path}",
            help="give a folder with the parquet files of Pick-a-Pic v2, or of a set with the same columns",
        )
    return found


def _hidden(file: Path, root: Path) -> bool:
    """Under a folder such as the `.cache` that hub downloads leave behind, or in our own, where `runs` lies beside the
    data."""
    ours = file.parent.name == "pairs" and _KEPT.fullmatch(file.name) is not None
    return ours or any(part.startswith(".") for part in file.relative_to(root).parts)


def files_below(folder: Path, ending: str) -> list[Path]:
    """Files of this ending in a folder and those below, through links; a folder that is reached twice counts once."""
    found, seen = [], set[Path]()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := Path(place).resolve()) in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [file for name in names if (file := Path(place, name)).suffix == ending and file.is_file()]
    return sorted(found)


def _split_of(file: AnyFile) -> str | None:
    """The split that a file's name states, else its folder's name."""
    stem = _SHARD.sub("", file.stem)
    for name in (stem, file.parent.name):
        if unique := _UNIQUE.search(name.lower()):
            return unique[0]
        words = [_SPLITS[word] for word in _WORDS.findall(name.lower()) if word in _SPLITS]
        if words:
            return words[-1]
    return stem if stem != file.stem else None


def check_columns(file: AnyFile, schema: pa.Schema, wanted: Sequence[str] = REQUIRED) -> None:
    """Raises `MachineError` when a column is missing, with a word on the likely reason."""
    missing = [name for name in wanted if name not in schema.names]
    if not missing:
        return
    if set(missing) <= {"jpg_0", "jpg_1"}:
        hint = "this looks like the variant without images; the full data set holds them as bytes"
    else:
        hint = f"these columns are needed: {', '.join(wanted)}; {file.name} has {', '.join(schema.names[:12])}"
    raise MachineError(f"{file} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}", help=hint)


def open_file(file: AnyFile, wanted: Sequence[str] = REQUIRED) -> pq.ParquetFile:
    """Opened and checked for columns; a file that is cut off or isn't parquet is a `MachineError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        place = file if isinstance(file, Path) else file.open()
        opened = pq.ParquetFile(place, memory_map=False, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        away = isinstance(file, RemoteFile)
        raise MachineError(
            f"{file} can't be read as parquet: {error}",
            help="is the address right, and are you logged in?" if away else "fetch the file again; it may be cut off",
        ) from error
    check_columns(file, opened.schema_arrow, wanted)
    twice = sorted({name for name in opened.schema_arrow.names if opened.schema_arrow.names.count(name) > 1})
    if twice:
        raise MachineError(f"{file} has several columns called {', '.join(twice)}")
    return opened


def check_pictures(file: AnyFile, schema: pa.Schema, names: Sequence[str]) -> None:
    """Raises `MachineError` unless these columns hold bytes, plainly or as the `{bytes, path}` of `datasets`."""
    import pyarrow.types as of

    for name in names:
        kind = schema.field(name).type
        inner = [field.type for field in kind if field.name == "bytes"] if of.is_struct(kind) else [kind]
        stored = (of.is_binary, of.is_large_binary, of.is_fixed_size_binary, of.is_binary_view, of.is_null)
        if len(inner) != 1 or not any(one(inner[0]) for one in stored):
            raise MachineError(
                f"{file}: pictures are bytes, and column {name} holds {kind}",
                help="smpo opens no paths that are written in a table; the full data set holds its pictures as bytes",
            )


def count_rows(path: Path | str, split: str | None = None, wanted: Sequence[str] = REQUIRED) -> int:
    """Rows (votes) of the set, from metadata alone: an upper bound on its pairs."""
    return sum(int(open_file(file, wanted).metadata.num_rows) for file in find_files(path, split))


def image_column(column: Any) -> Any:
    """An array of bytes, whether stored plainly or as the `{bytes, path}` that `datasets` writes."""
    import pyarrow as pa

    if not pa.types.is_struct(column.type):
        return column
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([image_column(chunk) for chunk in column.chunks], type=pa.binary())
    return column.field("bytes").cast(pa.binary())


class PictureBytes:
    """The bytes of single pictures, by (file, row group, column, row in the group).

    Parquet can be read by row groups only, so the last ones read are kept, up to `capacity` bytes: small sets
    end up in memory whole, large ones are quick in storage order and slow at random. Safe to use from several
    threads."""

    def __init__(
        self, files: Sequence[AnyFile], names: Sequence[str] = ("jpg_0", "jpg_1"), capacity: int = 512 << 20
    ) -> None:
        self._files = list(files)
        self._names = list(names)
        self._capacity = capacity
        self._columns: OrderedDict[tuple[int, int, int], Any] = OrderedDict()
        self._held = 0
        self._open: tuple[int, pq.ParquetFile] | None = None
        self._lock = threading.Lock()

    def read(self, file: int, group: int, side: int, row: int) -> bytes:
        """Raises `MachineError` when the file has gone."""
        with self._lock:
            column = self._columns.get((file, group, side))
            if column is None:
                column = self._load(file, group, side)
            self._columns.move_to_end((file, group, side))
            return bytes(column[row].as_py() or b"")

    def _load(self, file: int, group: int, side: int) -> Any:
        if self._open is None or self._open[0] != file:
            self._open = (file, open_file(self._files[file], self._names))
        name = self._names[side]
        with readable("the pictures", self._files[file], WHOLE):
            column = image_column(self._open[1].read_row_group(group, columns=[name]).column(name))
        while self._columns and self._held + column.nbytes > self._capacity:
            self._held -= self._columns.popitem(last=False)[1].nbytes
        self._columns[file, group, side] = column
        self._held += column.nbytes
        return column
