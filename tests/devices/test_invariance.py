"""How an update is cut up, kept and dealt out changes nothing but rounding: the same policy, on the same curve.

Bitwise where the arithmetic is the same: recomputed activations; latents, scores and prompts cached or made anew.
Elsewhere matrix products of another shape come from another kernel and round differently, and gradients are summed in
another order: there both sides are computed in float64. What can't be, several processes and encoders (their rows are
stored in float32), is compared in float32. AdamW divides a gradient by its own size: where that of a weight is near its
rounding, its step is rounding too, so two runs may differ by twice that, and by no more.
"""

import json

import pytest
import torch

from tests.cli.words import smpo
from tests.devices.launching import SHAPES, SMPO, ran, trained
from tests.double import ADAMW, LOGGED, WEIGHTS, in_double

AVERAGE = 3 * 2**-23
"""The moving average is kept in float32: each of three updates rounds numbers below 2 to multiples of 2^-23, of two
numbers that hardly differ perhaps one up and one down."""
STEPS = 3 * 2 * 1e-4
"""Three updates of lr 1e-4, in opposite directions: an update of AdamW is lr at most while its two moments are
young."""
CURVE = {"rel": 1e-3, "abs": 1e-4}
"""A margin is 250 times a difference of four errors of about 4e-3, means of 512 squares of a difference of two
numbers of order 1 that are right to 1e-6: each error to some 1e-8, a mean of few margins, whatever its value, to some
1e-5."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """One process, all pairs at once, nothing cached before: the curve and weights of everybody else."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "small.yaml").write_text(SHAPES)
    return folder


def done(folder, capfd, runs, *settings):
    """`smpo run` in this process; curve and weights."""
    words = [f"--set={word}" for word in (*settings, f"runtime.runs={folder / runs}")]
    words += [] if any("cache" in word for word in settings) else [f"--set=runtime.cache={folder / 'cache'}"]
    said = smpo(capfd, "run", folder / "small.yaml", "-q", *words)
    assert said.code == 0, said.err
    return read(folder / runs)


def read(runs):
    (run,) = runs.glob("small/*-1")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = {
        (line["step"], name): value
        for line in lines
        for name, value in line.items()
        if name.startswith("train/") and "second" not in name
    }
    return curve, trained(run)


@pytest.fixture(scope="module")
def whole(plain):
    said = ran(
        *SMPO,
        "run",
        "small.yaml",
        "-q",
        "--set=runtime.runs=whole",
        "--set=runtime.cache=cache",
        folder=plain,
    )
    assert said.returncode == 0, said.stderr
    return read(plain / "whole")


@pytest.mark.parametrize(
    "setting", ["runtime.gradient_checkpointing=true", "runtime.cache=elsewhere", "runtime.cache=cache"]
)
def test_bit_for_bit(plain, whole, capfd, monkeypatch, setting):
    """Activations computed twice; nothing in the cache; everything in it, by another process."""
    monkeypatch.chdir(plain)
    curve, weights = done(plain, capfd, setting.replace("=", "-"), setting)
    assert curve == whole[0]
    assert all((weights[name] == tensor).all() for name, tensor in whole[1].items())


@pytest.mark.parametrize(
    "settings",
    [
        ["runtime.micro_batch=1"],
        ["runtime.micro_batch=3", "runtime.window=3"],
        ["runtime.inversion_batch=5", "runtime.even_batches=true"],
    ],
    ids=lambda settings: settings[0],
)
def test_the_same_in_float64(plain, exact, capfd, monkeypatch, settings):
    """1 × 8 accumulated == 8 × 1; windows and portions of inversions."""
    monkeypatch.chdir(plain)
    in_double(monkeypatch)
    curve, weights = done(plain, capfd, settings[0].replace("=", "-"), ADAMW, *settings)
    if not exact:
        exact.extend(done(plain, capfd, "exact", ADAMW))
    assert curve == {key: pytest.approx(value, **LOGGED) for key, value in exact[0].items()}
    for name, tensor in exact[1].items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=AVERAGE if "average" in name else WEIGHTS)


@pytest.fixture(scope="module")
def exact():
    """Curve and weights of all pairs at once in float64, once a test has made them."""
    return []


def test_encoding_in_other_portions_is_the_same_to_rounding(plain, whole, capfd, monkeypatch):
    monkeypatch.chdir(plain)
    alike(done(plain, capfd, "portions", "runtime.encode_batch=3", "runtime.cache=afresh"), whole)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [[], ["model.lora.rank=4"]], ids=["whole network", "LoRA"])
@pytest.mark.parametrize("micro", [4, 1])
def test_two_processes(plain, capfd, monkeypatch, settings, micro):
    """2 processes × 4, at once or one after another."""
    monkeypatch.chdir(plain)
    kind = f"{len(settings)}-{micro}"
    alone = done(plain, capfd, f"alone-{kind}", *settings)
    words = [*settings, f"runtime.runs=two-{kind}", "runtime.cache=cache", f"runtime.micro_batch={micro}"]
    said = ran(*SMPO, "run", "small.yaml", "-q", "--devices", 2, *(f"--set={w}" for w in words), folder=plain)
    assert said.returncode == 0, said.stderr
    alike(read(plain / f"two-{kind}"), alone)


def alike(found, expected):
    curve, weights = found
    assert curve.keys() == expected[0].keys()
    for key, value in expected[0].items():
        assert curve[key] == pytest.approx(value, **CURVE), key
    for name, tensor in expected[1].items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=STEPS)
