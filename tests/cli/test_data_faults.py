"""Pairs that are damaged before a run or go away during it, from the command line."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from smpo.tracking.console import Console
from tests.cli.words import smpo

SPEC = """\
name: mine
model: shapes
data: {use: pickapic, path: train.parquet, max_broken: 0.5}
objective: {use: smpo, beta: 500}
smoothing: votes
inversion: none
train: {steps: 4, batch: 4, lr: 1e-4, crop: random}
runtime: {threads: 1, tracking: none}
"""


def picture(number):
    noise = np.random.default_rng(number).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def rows(count=12):
    return [
        {"caption": f"a red square {n}", "jpg_0": picture(2 * n), "jpg_1": picture(2 * n + 1), "label_0": 1.0,
         "label_1": 0.0}
        for n in range(count)
    ]  # fmt: skip


def parquet(folder, table):
    pq.write_table(pa.Table.from_pylist(table), folder / "train.parquet", row_group_size=2)


def images(folder, table):
    (folder / "set").mkdir()
    lines = []
    for n, row in enumerate(table):
        for side in (0, 1):
            (folder / "set" / f"{n}-{side}.jpg").write_bytes(row[f"jpg_{side}"])
        lines.append({"prompt": row["caption"], "chosen_file_name": f"{n}-0.jpg", "rejected_file_name": f"{n}-1.jpg"})
    (folder / "set" / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(SPEC)
    return path


def the_run(folder):
    (run,) = folder.glob("runs/mine/*-1")
    return run


def test_votes_without_several_voters_are_said(spec, capfd):
    parquet(spec.parent, rows())
    said = " ".join(smpo(capfd, "run", spec, "-q").err.split())
    assert "smoothing `votes` smooths nothing: all 12 pairs get what `hard` would give them" in said
    assert "smooths nothing" not in smpo(capfd, "run", spec, "-q", "--set", "smoothing=hard").err


@pytest.mark.fault(
    "faults", "corrupt and truncated images",
    "their pairs are dropped, counted by reason and listed with file and row; too many of them stop the run", times=4,
)  # fmt: skip
def test_damaged_images_are_dropped_and_counted(spec, capfd):
    table = rows()
    table[1]["jpg_0"] = table[1]["jpg_0"][:400]
    table[3]["jpg_1"] = table[3]["jpg_1"][:-200]
    table[5]["jpg_0"] = b"\xff\xd8" + bytes(300)
    table[7]["jpg_1"] = b""
    parquet(spec.parent, table)
    said = smpo(capfd, "run", spec)
    assert said.code == 0, said.err
    assert "12 rows" in said.err and "8 pairs" in said.err and "3 broken image" in said.err, said.err
    report = json.loads((the_run(spec.parent) / "data_report.json").read_text())
    assert sum(report["dropped"].values()) == 4 and report["dropped"]["broken_image"] == 3
    strict = smpo(capfd, "run", spec, "--again", "--set", "data.max_broken=0.1")
    assert strict.code == 1 and "4 of 12 rows are unusable" in strict.err and "Traceback" not in strict.err


def vanishes(file):
    file.rename(file.with_suffix(".away"))


def is_cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])


def is_overwritten(file):
    file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.fault(
    "faults", "a data file that changes or vanishes while training",
    "an error, and a checkpoint of the last whole update; with the file back, `--resume` gets to the same end",
)  # fmt: skip
@pytest.mark.parametrize("harm", [vanishes, is_cut, is_overwritten], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", [parquet, images], ids=lambda f: f.__name__)
def test_data_that_goes_away_ends_in_words_and_is_gone_on_from(spec, capfd, monkeypatch, kind, harm):
    kind(spec.parent, rows())
    sets = () if kind is parquet else ("--set", "data={use: imagefolder, path: set}")
    assert smpo(capfd, "run", spec, *sets, "-q", "--set", "name=straight").code == 0
    files = [*spec.parent.glob("set/*.jpg")] or [spec.parent / "train.parquet"]
    kept = {file: file.read_bytes() for file in files}

    def step(self, report, total):
        if report.step == 2:
            for file in files:
                harm(file)

    with monkeypatch.context() as patch:
        patch.setattr(Console, "step", step)
        said = smpo(capfd, "run", spec, *sets)
    assert "Traceback" not in said.err
    run = the_run(spec.parent)
    for file, content in kept.items():
        file.write_bytes(content)
    if said.code == 0:
        assert kind is parquet, "an open file, read before it was harmed, may be all that is needed"
    else:
        assert "error: " in said.err and "checkpoint of update 2" in said.err, said.err
        assert json.loads((run / "status.json").read_text())["state"] == "failed"
        assert smpo(capfd, "run", spec, *sets, "-q", "--resume").code == 0
    (straight,) = spec.parent.glob("runs/straight/*-1")
    ours, theirs = ((one / "model/unet/diffusion_pytorch_model.safetensors") for one in (run, straight))
    assert ours.read_bytes() == theirs.read_bytes()


def test_with_everything_encoded_nothing_is_read_while_training(spec, capfd, monkeypatch):
    parquet(spec.parent, rows())

    def step(self, report, total):
        if report.step == 1:
            vanishes(spec.parent / "train.parquet")

    monkeypatch.setattr(Console, "step", step)
    assert smpo(capfd, "run", spec, "-q", "--set", "train.crop=centre").code == 0
