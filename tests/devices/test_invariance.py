"""How an update is cut up, kept and dealt out changes nothing but rounding: the same policy, on the same curve.

Bitwise where the arithmetic is the same: recomputed activations; latents, scores and prompts cached or made anew.
Elsewhere matrix products of another shape come from another kernel and round differently, by about 1e-7 of a value in
float32, and gradients are summed in another order. AdamW divides a gradient by its own size: where that of a weight is
near its rounding, the step of that weight, up to lr, is rounding too. Hence the tolerances, a few times what is found.
"""

import json

import pytest

from tests.cli.words import smpo
from tests.devices.launching import SHAPES, SMPO, ran, trained

WEIGHTS = 1e-4
"""Of the largest weight, after three updates of lr 1e-4: found 1.5e-5."""
CURVE = 1e-3
"""Of a value: found 1.1e-4, in a margin that is a difference of differences."""


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
        ["runtime.encode_batch=3", "runtime.cache=afresh"],
    ],
    ids=lambda settings: settings[0],
)
def test_to_rounding(plain, whole, capfd, monkeypatch, settings):
    """1 × 8 accumulated == 8 × 1; windows and portions of inversions; encoding in other portions."""
    monkeypatch.chdir(plain)
    alike(done(plain, capfd, settings[0].replace("=", "-"), *settings), whole)


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
        assert curve[key] == pytest.approx(value, rel=CURVE, abs=1e-5), key
    largest = max(float(tensor.abs().max()) for tensor in expected[1].values())
    apart = {
        name: float((weights[name] - tensor).abs().max()) / largest for name, tensor in expected[1].items()
    }
    assert max(apart.values()) < WEIGHTS
