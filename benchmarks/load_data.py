"""How much memory a set of preference pairs takes, and how long it takes to read: 10,000 to 1,000,000 rows.

    python benchmarks/load_data.py          # some minutes; writes the part `data` of benchmarks/results/load.json
    python benchmarks/load_data.py --audit  # some minutes; writes `audit` in it: looking at a set, once it is indexed
    python benchmarks/load_data.py --rankings  # seconds; writes `rankings` in it: one image a row, gathered by prompt
    python benchmarks/load_data.py --quick     # seconds, to see that it works: a thousand rows, forty prompts

The sets are made here, a portion at a time: parquet in Pick-a-Pic's schema, two pictures of 16 x 16 a row, all
different, three rows a prompt, every tenth row a second vote on the pair before it. Each set is read in a process of
its own, first from the files, with every picture decoded, then from the index that the first reading left; then an
epoch's order is dealt, and pictures are fetched in that order's first places. Peak memory is the most that the process
ever held (`ru_maxrss`); `over imports` is what of it came after torch and smpo were imported.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from output import add_arguments, target, write

SIZES = (10_000, 100_000, 1_000_000)
PORTION = 5_000
SEED = 0
PROMPTS = 8_878
"""Of ImageRewardDB (Xu et al. 2023), which has 136,892 pairs."""


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--audit", action="store_true")
    which.add_argument("--rankings", action="store_true")
    for name in STEPS:
        which.add_argument(f"--{name}", type=Path, help=argparse.SUPPRESS)
    add_arguments(parser)
    options = parser.parse_args(words)
    for name, step in STEPS.items():
        if (folder := getattr(options, name)) is not None:
            print(json.dumps(step(folder)))
            return
    sizes = (1000,) if options.quick else SIZES
    file = target(options, "load.json")
    found = json.loads(file.read_text()) if file.exists() else {}
    data = found.setdefault("data", {})
    if options.rankings:
        data["rankings"] = rankings(40 if options.quick else PROMPTS)
    elif options.audit:
        data["audit"] = {str(rows): in_a_process(rows, "look") for rows in sizes}
    elif options.quick:
        data |= {"by_rows": {str(rows): in_a_process(rows, "read", alone=False) for rows in sizes}}
    else:
        data |= measure(sizes)
    data["versions"] = {name: metadata.version(name) for name in ("pyarrow", "pillow", "numpy")}
    write(file, found)
    print(json.dumps(data, indent=1))


def measure(sizes: tuple[int, ...]) -> dict[str, Any]:
    """Each size in a fresh process, so that peaks are its own."""
    by_rows = {str(rows): in_a_process(rows, "read") for rows in sizes}
    return {"seed": SEED, "workers": 1, "by_rows": by_rows}


def in_a_process(rows: int, what: str, *, alone: bool = True) -> dict[str, Any]:
    """`alone`: in a fresh one, whose peak memory means something."""
    with tempfile.TemporaryDirectory() as folder:
        size = make(Path(folder) / "pairs.parquet", rows)
        if not alone:
            return {"parquet_mb": round(size / 1e6, 1), **STEPS[what](Path(folder))}
        for _ in range(2 if what == "look" else 1):  # the first fills the index
            words = [sys.executable, __file__, f"--{what}", folder]
            told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return {"parquet_mb": round(size / 1e6, 1), **json.loads(told)}


def rankings(prompts: int) -> dict[str, Any]:
    """Metadata as large as ImageRewardDB's, of which the pictures aren't there: what counts is the gathering."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            {"prompt_id": f"{prompt:06d}-0000", "prompt": f"prompt {prompt}, " + "in some more words " * 8,
             "image_path": f"images/train/train_{prompt % 32}/{numbers.bytes(16).hex()}.webp", "rank": 1 + i}
            for prompt in range(prompts) for i in range(5 + prompt % 4)
        ]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), Path(folder) / "metadata-train.parquet")
        words = [sys.executable, __file__, "--gather", folder]
        told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return {"images": len(rows), **json.loads(told)}


def make(path: Path, rows: int) -> int:
    """Write a set; its size in bytes. No more than a portion is in memory."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    schema = pa.schema(
        [("caption", pa.string()), ("jpg_0", pa.binary()), ("jpg_1", pa.binary()), ("label_0", pa.float64()),
         ("label_1", pa.float64()), ("has_label", pa.bool_())]
    )  # fmt: skip
    numbers = np.random.default_rng(SEED)

    def picture() -> bytes:
        stream = io.BytesIO()
        pixels = numbers.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        Image.fromarray(np.kron(pixels, np.ones((8, 8, 1), np.uint8))).save(stream, "JPEG", quality=60)
        # A comment behind the end of the picture makes each one different from all others.
        return stream.getvalue() + numbers.bytes(8)

    with pq.ParquetWriter(path, schema) as writer:
        before: dict[str, Any] = {}
        for start in range(0, rows, PORTION):
            some = []
            for row in range(start, min(start + PORTION, rows)):
                won = float(numbers.integers(2))
                if row % 10 == 9:
                    one = {**before, "label_0": won, "label_1": 1 - won}
                else:
                    caption = f"prompt {row // 3}, in some more words than one"
                    one = {"caption": caption, "jpg_0": picture(), "jpg_1": picture(), "label_0": won,
                           "label_1": 1 - won, "has_label": True}  # fmt: skip
                some.append(one)
                before = one
            writer.write_table(pa.Table.from_pylist(some, schema))
    return path.stat().st_size


def read(folder: Path) -> dict[str, Any]:
    """Seconds of processor time, and megabytes."""
    import resource
    import time

    import smpo.data.pairs.table  # brings torch, whose size is counted among the imports
    from smpo.data.pairs.pickapic import read_pickapic
    from smpo.data.stream.order import Order

    assert smpo.data.pairs.table

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    imports, taken = peak(), {}
    for name in ("first", "again"):
        began = time.process_time()
        table = read_pickapic(folder / "pairs.parquet", cache=folder / "cache", workers=1)
        taken[f"{name}_seconds"] = round(time.process_time() - began, 2)
        taken[f"{name}_peak_mb"] = round(peak())
    began = time.process_time()
    order = Order(0, len(table))
    for row in order(range(500)):
        table.picture(table[row].winner)
    rows = table.report["rows"]
    return {
        "pairs": len(table),
        **taken,
        "rows_per_second_first": round(rows / taken["first_seconds"]),
        "rows_per_second_again": round(rows / taken["again_seconds"]),
        "500_pictures_at_random_seconds": round(time.process_time() - began, 2),
        "peak_mb": round(peak()),
        "imports_mb": round(imports),
        "over_imports_mb": round(peak() - imports),
    }


def look(folder: Path) -> dict[str, Any]:
    """An audit without a reward, in megabytes and seconds of processor time."""
    import resource
    import time

    from smpo.data.audit import Expected, audit, read_audit_rows
    from smpo.data.audit.page import page
    from smpo.data.sources.pickapic import pickapic_source

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    imports, began = peak(), time.process_time()
    book = read_audit_rows(pickapic_source(folder / "pairs.parquet"), cache=folder / "cache")
    read = peak()
    found = audit(book, Expected(16))
    html = page("load", found, book.picture)
    return {
        "rows": len(book),
        "page_kb": round(len(html) / 1e3),
        "json_kb": round(len(json.dumps(found.to_dict())) / 1e3),
        "findings": {one.name: one.count for one in found.findings},
        "seconds": round(time.process_time() - began, 2),
        "read_peak_mb": round(read),
        "peak_mb": round(peak()),
        "imports_mb": round(imports),
    }


def gather(folder: Path) -> dict[str, Any]:
    """Rankings to pairs, every one read; the pictures' files are looked for and not found."""
    import time

    from smpo.components.adapters import ImageRewardDB

    def memory(what: str) -> float:
        """In megabytes; `ru_maxrss` would begin with what the parent had when it started this process."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024

    source = ImageRewardDB(path=str(folder), annotations="metadata-train.parquet").source()
    imports, began = memory("VmRSS"), time.process_time()
    pairs = sum(len(some) for number, _ in enumerate(source.parts()) for some in source.claims(number))
    return {
        "pairs": pairs,
        "seconds": round(time.process_time() - began, 2),
        "peak_mb": round(memory("VmHWM")),
        "over_imports_mb": round(memory("VmHWM") - imports),
    }


STEPS = {"read": read, "look": look, "gather": gather}
"""What runs in a process of its own, on a folder."""

if __name__ == "__main__":
    main()
