"""Pictures and scores of the base on disk, so that the next run with the same base draws only its policy.

The caller's `key` names the model and how it samples (weights, precision, sampler, guidance, steps). Inside, a picture
is found by its seed and text, and a score by the scorer's key, so other limits, more images and new judges reuse them.
Nothing is ever overwritten: a batch of new rows becomes a new file, named by its content, and two runs that fill the
cache at once at worst write the same row twice. Files that can't be read count as absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from smpo.atomic import with_path
from smpo.evaluation.sampling.slots import Slot

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["BaseCache"]


class BaseCache:
    """Pictures of one base for one way of sampling. Layout: `<folder>/<hash of key>/{<hash>.json, <seed>.png}`."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder / hashlib.sha256(key.encode()).hexdigest()[:24]
        self._scores: dict[tuple[str, int], dict[str, float]] = {}
        self._points: dict[tuple[str, int], np.ndarray[Any, Any]] = {}
        self.read()

    def read(self) -> None:
        """Read the files; again when other processes have written."""
        for file in sorted(self.folder.glob("*.json")):
            try:
                content = file.read_bytes()
                if file.stem != _name(content):
                    continue  # altered since it was written
                for row in json.loads(content):
                    self._add(row)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue  # half a file, or a foreign one: its pictures are drawn again

    def scores(self, slot: Slot) -> Mapping[str, float]:
        """Scorer key -> score, as far as known."""
        return self._scores.get((slot.text, slot.seed), {})

    def point(self, slot: Slot) -> np.ndarray[Any, Any] | None:
        """The picture, when it is a point and so already in memory."""
        return self._points.get((slot.text, slot.seed))

    def picture(self, slot: Slot) -> Picture | None:
        """The picture in this slot, bit for bit as it was drawn."""
        point = self.point(slot)
        if point is not None:
            return point
        if (slot.text, slot.seed) not in self._scores:
            return None  # a picture of another text may have the same seed; only a row vouches for the file
        try:
            with Image.open(self._file(slot)) as image:
                image.load()
                return image.copy()
        except (OSError, ValueError, SyntaxError):  # SyntaxError is how PIL reports a broken PNG
            return None

    def write(self, slots: Sequence[Slot], pictures: Sequence[Picture], scores: Mapping[str, Sequence[float]]) -> None:
        """Add a batch: `scores` maps a scorer's key to one score a slot. Scores that aren't finite are left out."""
        rows: list[dict[str, Any]] = []
        for place, (slot, picture) in enumerate(zip(slots, pictures, strict=True)):
            found = {key: float(column[place]) for key, column in scores.items()}
            row = {
                "text": slot.text,
                "seed": slot.seed,
                "scores": {key: value for key, value in found.items() if np.isfinite(value)},
            }
            if isinstance(picture, np.ndarray):
                row |= {"point": picture.tolist(), "dtype": str(picture.dtype)}
            elif not self._file(slot).exists():
                self._put(self._file(slot), picture)
            rows.append(row)
            self._add(row)
        content = json.dumps(rows).encode()
        self._put(self.folder / f"{_name(content)}.json", content)

    def _add(self, row: Mapping[str, Any]) -> None:
        place = (str(row["text"]), int(row["seed"]))
        self._scores.setdefault(place, {}).update(row["scores"])
        if "point" in row:
            self._points[place] = np.array(row["point"], dtype=row["dtype"])

    def _file(self, slot: Slot) -> Path:
        return self.folder / f"{slot.seed:012x}.png"

    def _put(self, file: Path, content: bytes | Image.Image) -> None:
        """Write beside and rename, so that a reader sees the whole file or none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=self.folder, suffix=".part")
        try:
            with with_path(file), os.fdopen(handle, "wb") as stream:
                if isinstance(content, bytes):
                    stream.write(content)
                else:
                    content.save(stream, format="PNG", compress_level=1)
            Path(beside).replace(file)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise


def _name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:24]
