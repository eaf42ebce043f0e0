"""The same pairs in every format that is read: a function a format."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from smpo.components.adapters import ChosenRejected, HPDv2, HPDv3, ImageFolder, ImageRewardDB, WebDataset
from smpo.components.datasets import PickAPic, PlacedData
from tests.data.worlds import jpeg, vote, write

A, B, C, D, E, F = (jpeg(number) for number in range(6))
BROKEN = jpeg(9)[:200]
NO_IMAGE = b""

PAIRS: list[tuple[str, bytes, bytes]] = [("a cat", A, B), ("a dog", C, D), ("a fish", E, F)]
"""Prompt, preferred, the other: what each format is made to say."""
DEFECTS: list[tuple[str, bytes, bytes]] = [
    ("cut", A, BROKEN),
    ("one", A, A),
    (" ", A, B),
    ("none", A, NO_IMAGE),
]

Rows = list[tuple[str, bytes, bytes]]


def files(folder: Path, rows: Rows) -> list[tuple[str, str, str]]:
    """Images as files; a missing one is only named."""
    listed = []
    for number, (prompt, first, second) in enumerate(rows):
        names = []
        for side, data in (("w", first), ("l", second)):
            name = f"pics/{number}{side}.jpg"
            (folder / "pics").mkdir(parents=True, exist_ok=True)
            if data:
                (folder / name).write_bytes(data)
            names.append(name)
        listed.append((prompt, names[0], names[1]))
    return listed


def pickapic(folder: Path, rows: Rows) -> PlacedData:
    write(folder / "train.parquet", [vote(*row) for row in rows])
    return PickAPic(path=str(folder))


def chosen(folder: Path, rows: Rows) -> PlacedData:
    folder.mkdir(parents=True, exist_ok=True)
    listed = [
        {"words": p, "good": {"bytes": w, "path": None}, "bad": {"bytes": x, "path": "x.jpg"}} for p, w, x in rows
    ]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("words", pa.string()), ("good", image), ("bad", image)])
    pq.write_table(pa.Table.from_pylist(listed, schema), folder / "data-00000-of-00001.parquet")
    return ChosenRejected(path=str(folder), columns={"prompt": "words", "chosen": "good", "rejected": "bad"})


def imagefolder(folder: Path, rows: Rows) -> PlacedData:
    lines = [
        json.dumps({"prompt": p, "chosen_file_name": w, "rejected_file_name": x}) for p, w, x in files(folder, rows)
    ]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return ImageFolder(path=str(folder))


def ranked_folder(folder: Path, rows: Rows) -> PlacedData:
    records = [
        {"prompt": f"{p}", "id": number, "file_name": name, "place": rank}
        for number, (p, w, x) in enumerate(files(folder, rows))
        for name, rank in ((w, 1), (x, 2))
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return ImageFolder(path=str(folder), rank="place", group="id")


def hpdv2(folder: Path, rows: Rows) -> PlacedData:
    records = [
        {
            "prompt": p,
            "file_path": [x, w] if number % 2 else [w, x],
            "human_preference": [0, 1] if number % 2 else [1, 0],
        }
        for number, (p, w, x) in enumerate(files(folder / "train", rows))
    ]
    (folder / "train.json").write_text(json.dumps(records))
    return HPDv2(path=str(folder))


def hpdv3(folder: Path, rows: Rows) -> PlacedData:
    records = [
        {
            "prompt": p,
            "choice_dist": None,
            "confidence": None,
            "path1": w,
            "path2": x,
            "model1": "m",
            "model2": "n",
        }
        for p, w, x in files(folder, rows)
    ]
    (folder / "train.json").write_text(json.dumps(records))
    return HPDv3(path=str(folder))


def imagereward(folder: Path, rows: Rows) -> PlacedData:
    records = [
        {"id": str(number), "prompt": p, "generations": [w, x], "ranking": [1, 3]}
        for number, (p, w, x) in enumerate(files(folder, rows))
    ]
    (folder / "train.json").write_text(json.dumps(records))
    return ImageRewardDB(path=str(folder))


def imagereward_metadata(folder: Path, rows: Rows) -> PlacedData:
    records = [
        {"prompt_id": f"{number:06d}", "prompt": p, "image_path": name, "rank": rank}
        for number, (p, w, x) in enumerate(files(folder, rows))
        for name, rank in ((w, 1), (x, 2))
    ]
    pq.write_table(pa.Table.from_pylist(records), folder / "metadata-train.parquet")
    return ImageRewardDB(path=str(folder), annotations="metadata-train.parquet")


def tar(folder: Path, rows: Rows) -> PlacedData:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "shard-000.tar", "w") as archive:
        for number, (prompt, first, second) in enumerate(rows):
            for ending, data in (("txt", prompt.encode()), ("chosen.jpg", first), ("rejected.jpg", second)):
                member(archive, f"s/{number:04d}.{ending}", data)
    return WebDataset(path=str(folder))


def member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


FORMATS: list[Callable[[Path, Rows], PlacedData]] = [
    pickapic, chosen, imagefolder, ranked_folder, hpdv2, hpdv3, imagereward, imagereward_metadata, tar,
]  # fmt: skip
