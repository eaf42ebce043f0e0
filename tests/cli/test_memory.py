"""Memory that runs out during training: injected where torch would raise it, seen from the command line."""

import json

import pytest
import torch

from smpo.components.inversions import ReNoise
from smpo.components.objectives import DiffusionKTO, SmPO
from smpo.engine.loop import fit
from smpo.engine.out_of_memory import OutOfMemory, is_out_of_memory
from tests.cli.words import SMALL_PLANE, smpo
from tests.double import ADAMW, LOGGED, in_double
from tests.engine.toys import toy_session

TIMED = ("pairs_per_second", "seconds")


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(SMALL_PLANE)
    return path


def full(monkeypatch, most, calls=None, error=None):
    """The plane's networks hold gradients of `most` rows; `calls` counts what was refused."""
    import smpo.families.plane as plane

    predict = plane.PlaneDenoiser.predict

    def limited(self, x, t, cond, *, reference=False, inverting=False):
        if torch.is_grad_enabled() and len(x) > most:
            if calls is not None:
                calls.append(len(x))
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return predict(self, x, t, cond, reference=reference)

    monkeypatch.setattr(plane.PlaneDenoiser, "predict", limited)


def curve(folder, name):
    (run,) = folder.glob(f"runs/{name}/*-1")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k.startswith("train/") and not any(word in k for word in TIMED)}
        for line in lines
        if "train/loss" in line
    ]


@pytest.mark.fault(
    "faults", "out of memory in an update",
    "micro-batches are halved and the update is repeated; the curve is the same to rounding", times=2,
)  # fmt: skip
def test_micro_batches_are_halved_until_they_fit(spec, capfd, monkeypatch, record_property):
    in_double(monkeypatch)
    words = ("--set=evaluate=null", f"--set={ADAMW}")
    assert smpo(capfd, "run", spec, "-q", "--set", "name=straight", *words).code == 0
    refused = []
    full(monkeypatch, 9, refused)
    said = smpo(capfd, "run", spec, *words)
    assert said.code == 0, said.err
    assert refused == [32, 16], "two sides of 16 pairs, then of 8; 4 fit from then on"
    words = " ".join((said.out + said.err).split())
    assert "ran out of memory with 16 pairs at once; it is done again with 8" in words
    assert "ran out of memory with 8 pairs at once; it is done again with 4" in words
    straight, halved = curve(spec.parent, "straight"), curve(spec.parent, "small")
    assert len(straight) == len(halved) == 4
    for one, other in zip(straight, halved, strict=True):
        assert one == pytest.approx(other, **LOGGED)


@pytest.mark.fault("faults", "no memory for a single pair", "an error with advice; `--resume` continues")
def test_a_single_pair_that_does_not_fit_ends_the_run_in_words(spec, capfd, monkeypatch):
    with monkeypatch.context() as patch:
        full(patch, 1)
        said = smpo(capfd, "run", spec, "-q", "--set", "runtime.micro_batch=2")
    assert said.code == 3
    assert "ran out of memory with a single pair" in said.err and "gradient_checkpointing" in said.err
    assert "Traceback" not in said.err
    assert smpo(capfd, "run", spec, "-q", "--resume").code == 0


@pytest.mark.fault(
    "faults", "out of memory while encoding or sampling",
    "an error that names the setting; finished work is kept, and `--resume` continues",
)  # fmt: skip
@pytest.mark.parametrize("what", ["encode_pictures", "sample"])
def test_elsewhere_it_ends_in_words_and_is_gone_on_from(spec, capfd, monkeypatch, what):
    import smpo.families.plane as plane

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(plane.PlaneDenoiser, what, full)
        said = smpo(capfd, "run", spec, "-q")
    assert said.code == 1 and "Traceback" not in said.err
    assert said.err.startswith("error: out of memory") and "runtime.encode_batch" in said.err
    (run,) = spec.parent.glob("runs/small/*-1")
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    assert smpo(capfd, "run", spec, "-q", "--resume", "--set", "runtime.encode_batch=4").code == 0


@pytest.mark.parametrize("objective", [SmPO(beta=50), DiffusionKTO(beta=50)], ids=lambda o: o.use)
def test_an_update_that_was_begun_leaves_no_gradients(objective):
    """Memory runs out at the second micro-batch of an update: what the first one left must not count twice."""
    plain, short = (toy_session(objective, ReNoise(steps=4), micro=4, exact=True) for _ in range(2))
    predict, calls = short.denoiser.predict, []

    def limited(x, t, cond, *, reference=False, inverting=False):
        if torch.is_grad_enabled() and not reference:
            calls.append(len(x))
            if len(calls) == 4:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return predict(x, t, cond, reference=reference)

    short.denoiser.predict = limited
    one, other = list(fit(plain)), list(fit(short))
    assert short.micro_batcher.pairs == 2 and calls[4:] == [4] * 16
    for a, b in zip(one, other, strict=True):
        assert a.metrics == pytest.approx(b.metrics, **LOGGED)


def test_several_processes_end_instead_of_waiting_for_each_other():
    session = toy_session(SmPO(), ReNoise(steps=4))
    session.micro_batcher._alone = False
    session.denoiser.policy.forward = lambda *_: (_ for _ in ()).throw(MemoryError())
    with pytest.raises(OutOfMemory, match="8 pairs at once") as caught:
        next(fit(session))
    assert "runtime.micro_batch=4" in caught.value.help


def test_what_counts_as_memory():
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 5 bytes"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"))
    assert (
        is_out_of_memory(MemoryError())
        and not is_out_of_memory(RuntimeError("shapes differ"))
        and not is_out_of_memory(OSError(12, "x"))
    )
