"""A disk that is full or may not be written, as a person meets it. The kernel itself refuses: no file may grow beyond
a few bytes (`RLIMIT_FSIZE`)."""

import json
import resource

import pytest

from tests.cli.words import SMALL_PLANE, smpo


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(SMALL_PLANE)
    return path


@pytest.fixture
def limit():
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def limited(monkeypatch, limit, sizes):
    """From the console's report of an update on, files may have so many bytes."""
    from smpo.tracking.console import Console

    monkeypatch.setattr(Console, "step", lambda self, report, total: limit(sizes.get(report.step)))


def weights(folder, name):
    (run,) = folder.glob(f"runs/{name}/*-1")
    return (run / "model/model.safetensors").read_bytes()


@pytest.mark.fault(
    "faults", "a disk that is full for a while when a checkpoint is due",
    "older checkpoints make room, or training goes on with a warning; the result is the same",
)  # fmt: skip
def test_a_disk_that_is_full_for_a_while_costs_a_checkpoint_and_changes_nothing(spec, capfd, monkeypatch, limit):
    assert smpo(capfd, "run", spec, "-q", "--set", "name=straight").code == 0
    with monkeypatch.context() as patch:
        limited(patch, limit, {2: 3000})
        said = smpo(capfd, "run", spec, "--set", "runtime.checkpoint_every=1")
    assert said.code == 0, said.err
    words = " ".join(said.err.split())
    assert "the checkpoint after update 2 could not be written (File too large)" in words
    assert "step-00000001 is whole, and training goes on" in words
    assert weights(spec.parent, "small") == weights(spec.parent, "straight")


@pytest.mark.fault(
    "faults", "a disk that is full for a while while training",
    "log lines wait in memory, with a warning, and none is lost",
)  # fmt: skip
def test_a_disk_that_is_full_for_a_while_costs_no_point_of_the_curve(spec, capfd, monkeypatch, limit):
    with monkeypatch.context() as patch:
        limited(patch, limit, dict.fromkeys(range(1, 20), 3000))
        said = smpo(capfd, "run", spec, "-q", "--set", "train.steps=20")
    words = " ".join(said.err.split())
    assert said.code == 0 and "can't be written (File too large): it waits in memory" in words
    assert "the log is whole again" in words
    (run,) = spec.parent.glob("runs/small/*-1")
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, 21)) and steps == sorted(steps)


@pytest.mark.fault(
    "faults", "Ctrl-C while a full disk takes checkpoints and no lines of the log",
    "waiting lines are in the checkpoint: after `--resume` the curve has no gap",
)  # fmt: skip
def test_lines_that_wait_are_in_the_checkpoint(spec, capfd, monkeypatch):
    from io import FileIO

    import smpo.tracking.jsonl as home
    from smpo.tracking.console import Console

    class Refusing(FileIO):
        full = False

        def write(self, data):
            if Refusing.full:
                raise OSError(28, "No space left on device")
            return super().write(data)

    def step(self, report, total):
        Refusing.full = report.step >= 6
        if report.step == 12:
            raise KeyboardInterrupt

    words = ("run", spec, "-q", "--set", "train.steps=20", "--set", "runtime.checkpoint_every=4")
    with monkeypatch.context() as patch:
        patch.setattr(home, "FileIO", Refusing)
        patch.setattr(Console, "step", step)
        said = smpo(capfd, *words)
    assert said.code == 130 and "could not be written" in " ".join(said.err.split())
    assert smpo(capfd, *words, "--resume").code == 0
    (run,) = spec.parent.glob("runs/small/*-1")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == list(range(1, 21))


@pytest.mark.fault(
    "faults",
    "a disk that is full when the model is saved",
    "an error; with room, `--resume` only saves",
)
def test_a_model_that_finds_no_room_is_saved_later(spec, capfd, monkeypatch, limit):
    import smpo.app.run.export as home

    plain = home.export

    def full(*words):
        limit(10_000)
        return plain(*words)

    with monkeypatch.context() as patch:
        patch.setattr(home, "export", full)
        said = smpo(capfd, "run", spec, "-q")
    limit(None)
    words = " ".join(said.err.split())
    assert said.code == 1 and "/model: File too large help: make room there" in words, said.err
    assert "Traceback" not in words
    assert smpo(capfd, "run", spec, "-q", "--resume").code == 0
    assert weights(spec.parent, "small")


def test_what_could_not_be_written_is_named(spec, capfd, limit):
    limit(1500)  # what was typed fits, what it means doesn't
    said = smpo(capfd, "run", spec, "-q")
    limit(None)
    words = " ".join(said.err.split())
    assert said.code == 1 and "/resolved.yaml: File too large help: make room there" in words


@pytest.mark.fault("faults", "a disk that stays full", "an error; with room, `--resume` gets to the same end")
def test_a_disk_that_stays_full_ends_in_words_and_is_gone_on_from(spec, capfd, monkeypatch, limit):
    assert smpo(capfd, "run", spec, "-q", "--set", "name=straight").code == 0
    with monkeypatch.context() as patch:
        limited(patch, limit, {3: 3000, 4: 3000})
        said = smpo(capfd, "run", spec, "-q", "--set", "runtime.checkpoint_every=1")
        limit(None)
    words = " ".join(said.err.split())
    assert said.code == 1 and "Traceback" not in words
    assert "the checkpoint after update 4" in words and "File too large; step-00000002 is whole" in words
    assert "--resume" in words
    (run,) = spec.parent.glob("runs/small/*-1")
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    assert smpo(capfd, "run", spec, "-q", "--resume").code == 0
    assert weights(spec.parent, "small") == weights(spec.parent, "straight")
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == [1, 2, 3, 4] and steps == sorted(steps)


@pytest.mark.fault(
    "faults",
    "a disk that is full while encoding into the cache",
    "an error; encoded rows are kept and used",
)
def test_a_cache_that_is_full_says_so_and_keeps_what_it_has(tmp_path, limit):
    import torch

    from smpo.data.cache.encoded_store import EncodedStore
    from smpo.errors import RunError

    def rows(ids):
        return {"latent": torch.stack([torch.full((4, 16, 16), float(name)) for name in ids])}

    store = EncodedStore(tmp_path, "encoder")
    store.ensure(["1", "2"], rows)
    limit(50_000)
    with pytest.raises(RunError, match=r"the cache .* can't take 0\.\d MB more: File too large") as caught:
        store.ensure([str(n) for n in range(40)], rows)
    limit(None)
    assert "runtime.cache" in str(caught.value.help)
    assert not list(store.folder.glob("*.tmp"))
    assert EncodedStore(tmp_path, "encoder").missing(["1", "2", "3"]) == ["3"]
    store.ensure([str(n) for n in range(40)], rows)
    assert store.rows(["39", "1"])["latent"][:, 0, 0, 0].tolist() == [39, 1]


@pytest.mark.fault(
    "faults",
    "an output folder that may only be read, or is none",
    "an error before any work, exit code 3",
    times=2,
)
@pytest.mark.parametrize("which", ["runs", "cache"])
def test_a_folder_that_can_not_be_written_is_named_before_any_work(spec, capfd, monkeypatch, which):
    import os

    import smpo.app.plan.requirements as module

    plain = os.access
    monkeypatch.setattr(module.os, "access", lambda path, mode: "locked" not in str(path) and plain(path, mode))
    (spec.parent / "locked").mkdir()
    said = smpo(capfd, "run", spec, "--set", f"runtime.{which}=locked/deep")
    assert said.code == 3, said.err
    words = " ".join(said.err.split())
    assert f"runtime.{which}: nothing can be written in" in words and "read-only" in words
    assert f"--set runtime.{which}=FOLDER" in words
    assert not list((spec.parent / "locked").iterdir())

    (spec.parent / "file").write_text("")
    said = smpo(capfd, "run", spec, "--set", f"runtime.{which}=file/deep")
    assert said.code == 3 and "is not a folder" in " ".join(said.err.split())
