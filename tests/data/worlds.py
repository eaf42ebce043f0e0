"""Small tables, parquet files, scorers and encoders for the tests of `smpo.data`."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from smpo.imaging import content_id, place
from smpo.kinds import Pair, Placement

SCHEMA = pa.schema(
    [
        ("caption", pa.string()),
        ("jpg_0", pa.binary()),
        ("jpg_1", pa.binary()),
        ("label_0", pa.float64()),
        ("label_1", pa.float64()),
        ("has_label", pa.bool_()),
        ("best_image_uid", pa.string()),
        ("image_0_uid", pa.string()),
        ("image_1_uid", pa.string()),
    ]
)


def jpeg(number: int, width: int = 24, height: int = 16) -> bytes:
    """A picture that is different for each number, and not symmetric."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST).save(stream, "JPEG")
    return stream.getvalue()


def vote(caption: str | None, first: bytes, second: bytes, label: float = 1.0, **changes: Any) -> dict[str, Any]:
    """One row: `label` of the vote goes to the first image."""
    uids = [hashlib.md5(data).hexdigest() for data in (first, second)]
    row = {
        "caption": caption,
        "jpg_0": first,
        "jpg_1": second,
        "label_0": label,
        "label_1": 1 - label,
        "has_label": label != 0.5,
        "best_image_uid": "none" if label == 0.5 else uids[0] if label > 0.5 else uids[1],
        "image_0_uid": uids[0],
        "image_1_uid": uids[1],
    }
    return {**row, **changes}


def write(path: Path, rows: Sequence[dict[str, Any]], group: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), path, row_group_size=group)
    return path


class Points:
    """A `PairTable` of points in the plane, as `smpo.worlds.plane` has them."""

    def __init__(self, pairs: int = 10, prompts: int = 4) -> None:
        generator = np.random.default_rng(0)
        self.points = {content_id(point): point for point in generator.normal(size=(2 * pairs, 2)).astype(np.float32)}
        names = list(self.points)
        self.pairs = [
            Pair(f"pair{i}", f"prompt {i % prompts}", names[2 * i], names[2 * i + 1], 1.0) for i in range(pairs)
        ]
        self.digest = f"points-{pairs}-{prompts}"
        self.report: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]

    def picture(self, image_id: str) -> np.ndarray[Any, Any]:
        return self.points[image_id]


class Judge:
    """A `Scorer`: the first coordinate, and how often it was asked; dies when asked once too often."""

    def __init__(self, key: str = "judge", dies_after: int | None = None, nan_at: float | None = None) -> None:
        self.key, self.asked, self.dies_after, self.nan_at = key, 0, dies_after, nan_at

    def __call__(self, pictures: Sequence[Any], prompts: Sequence[str]) -> Tensor:
        if self.dies_after is not None and self.asked + len(pictures) > self.dies_after:
            raise KeyboardInterrupt
        self.asked += len(pictures)
        values = torch.tensor([float(np.asarray(picture).ravel()[0]) for picture in pictures])
        return torch.where(values == self.nan_at, torch.nan, values) if self.nan_at is not None else values


class Encoder:
    """The encoding half of a `Denoiser`: pixels as latents, with SDXL's sizes beside them."""

    def __init__(self, key: str = "encoder", resolution: int = 8) -> None:
        self.encoder_key, self.resolution = key, resolution
        self.device = torch.device("cpu")
        self.pictures_seen: list[tuple[Any, Placement]] = []
        self.prompts_seen: list[str] = []

    def encode_pictures(self, pictures: Sequence[Any], placements: Sequence[Placement]) -> dict[str, Tensor]:
        self.pictures_seen += zip(pictures, placements, strict=True)
        placed = [self._place(picture, where) for picture, where in zip(pictures, placements, strict=True)]
        mean = torch.stack([each.pixels for each in placed])
        sizes = torch.tensor([[*each.original, *each.top_left] for each in placed], dtype=torch.float32)
        return {"mean": mean, "std": torch.full_like(mean, 0.1), "size_ids": sizes}

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        self.prompts_seen += prompts
        return {"text": torch.stack([text_row(prompt) for prompt in prompts])}

    def _place(self, picture: Any, where: Placement) -> Any:
        if isinstance(picture, np.ndarray):
            pixels = torch.from_numpy(picture).reshape(2, 1, 1)
            return SimpleNamespace(pixels=pixels, original=(1, 1), top_left=(0, 0))
        return place(picture, self.resolution, where)


def text_row(prompt: str) -> Tensor:
    return torch.tensor([[len(prompt), sum(prompt.encode()) % 1009, bool(prompt)]], dtype=torch.float32)
