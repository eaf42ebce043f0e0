"""The benchmark's two arms compute the same thing, and what it says of settings is counted right. Nothing is timed."""

import json

import pytest
import torch


@pytest.fixture
def speed(script):
    return lambda name: script(f"speed.{name}")


@pytest.mark.parametrize(
    ("arch", "grid", "beta"),
    [("tiny", "0.20", 5000.0), ("tiny", "0.22", 50.0), ("sd15", "0.22", 50.0), ("sdxl", "0.20", 50.0)],
)
def test_the_arms_agree(speed, monkeypatch, arch, grid, beta):
    """The gradient too, to a hundred-thousandth, where the loss doesn't multiply the last bits of errors by 25,000."""
    monkeypatch.setitem(speed("archs").BETA, arch, beta)
    world = speed("archs").build(arch, torch.device("cpu"), 2, reduced=arch != "tiny")
    found = speed("parity").parity(world, grid, 2)
    assert set(found) >= {"x_t", "target", "errors", "margin", "loss", "gradient_norm", "gradient_cosine"}
    assert found["gradient_norm"] < (1e-5 if beta == 50 else 5e-4)


def test_an_arm_that_computes_something_else_is_not_timed(speed, monkeypatch):
    world = speed("archs").build("tiny", torch.device("cpu"), 2)
    monkeypatch.setattr(speed("official"), "GAMMA", 9.0)
    with pytest.raises(AssertionError, match="the arms differ"):
        speed("parity").parity(world, "0.22", 2)


@pytest.mark.slow
def test_in_16_bits_smpo_is_as_near_to_float32_as_the_official_structure(speed):
    world = speed("archs").build("tiny", torch.device("cpu"), 6)
    found = speed("parity").half_parity(world, "0.22", "bf16", 3)
    assert 0.5 < found["x_t"] < 1.2 and found["gradient"] > 0


def test_what_a_backward_keeps_is_counted(speed):
    world = speed("archs").build("tiny", torch.device("cpu"), 2)
    names = ["gradient_checkpointing", "gradient_checkpointing: selective"]
    selective, whole = speed("options").compared(world, "0.22", "fp32", speed("ours").Mode(2), names, 1)
    assert whole["kept_gb"] < 0.4 * selective["kept_gb"] and selective["kept_gb"] < 0.9 * whole["exact_kept_gb"]
    assert whole["tflop"] > whole["exact_tflop"] == selective["tflop"]


def flags():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("before", [(True, True), (False, True)])
def test_nothing_is_compared_in_tensorfloat_32(speed, monkeypatch, before):
    """Neither products nor convolutions, whatever is on before; afterwards the flags are as before, errors or not."""
    seen = []

    class Seen(Exception):
        pass

    def stop(*_, **__):
        seen.append(flags())
        raise Seen

    world = speed("archs").build("tiny", torch.device("cpu"), 2, reduced=True)
    monkeypatch.setattr(speed("official").Official, "update", stop)
    kept = flags()
    try:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
        for check in (speed("parity").parity, lambda *a: speed("parity").half_parity(*a[:2], "bf16", a[2])):
            with pytest.raises(Seen):
                check(world, "0.22", 1)
            assert flags() == before
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept
    assert seen == [(False, False)] * 2


def test_an_inversion_batch_is_of_its_own_size(speed):
    """Passes without gradients take as many images as they are told, those with gradients a micro-batch."""
    ours = speed("ours")
    world = speed("archs").build("tiny", torch.device("cpu"), 4, reduced=True)
    sizes = {True: set(), False: set()}
    world.policy.register_forward_pre_hook(lambda _, inputs: sizes[torch.is_grad_enabled()].add(len(inputs[0])))
    arm = ours.Ours(world, "0.22", "fp32", ours.Mode(1, rows=4))
    arm.update(speed("measure").unwatched)
    assert sizes[True] == {2} and max(sizes[False]) == 4


def test_a_part_of_the_pairs_keeps_their_timesteps_spread(speed):
    world = speed("archs").build("tiny", torch.device("cpu"), 20, reduced=True)
    world.moments = speed("ours").encode(world, 8)
    assert world.spread(10).t.tolist() == world.t[:10].tolist() == list(range(50, 1000, 100))
    assert world.spread(2).t.tolist() == [250, 750] and world.spread(99) is world
    few = world.spread(2)
    assert torch.equal(few.moments[0], world.moments[0][:, [2, 7]]) and few.optimiser is world.optimiser


def test_an_interrupted_ablation_keeps_what_was_measured(script, monkeypatch, tmp_path):
    side_by_side, out = script("side_by_side"), tmp_path / "found.json"

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side, "phases", interrupted)
    with pytest.raises(KeyboardInterrupt):
        side_by_side.main(["--quick", "--mode", "official", "--skip-parity", "--out", str(out)])
    found = json.loads(out.read_text())
    assert [rung["name"] for rung in found["rungs"]] == ["official"] and not found["finished"]
    assert found["rungs"][0]["per_second"] > 0


def test_arms_that_differ_are_timed_only_when_told(script, monkeypatch, tmp_path):
    side_by_side, out = script("side_by_side"), tmp_path / "found.json"

    def differ(*_):
        raise AssertionError("the arms differ: everything")

    monkeypatch.setattr(side_by_side, "parity", differ)
    words = ["--quick", "--mode", "official", "--options", "--out", str(out)]
    with pytest.raises(AssertionError):
        side_by_side.main(words)
    assert "rungs" not in json.loads(out.read_text())
    side_by_side.main([*words, "--keep-going"])
    found = json.loads(out.read_text())
    assert found["parity_failed"] == {"parity": "the arms differ: everything"} and found["rungs"]
    assert "not shown to agree" in script("half_hour.page")._side_by_side(found)


def test_an_option_that_fails_leaves_the_others(speed, monkeypatch):
    options, world = speed("options"), speed("archs").build("tiny", torch.device("cpu"), 2, reduced=True)
    kept, compare = [], options._compared

    def broken(exact, arm, option, repeats):
        if arm.mode.checkpointing:
            raise torch.OutOfMemoryError("no room")
        return compare(exact, arm, option, repeats)

    monkeypatch.setattr(options, "_compared", broken)
    names = ["gradient_checkpointing", "channels_last"]
    options.compared(world, "0.22", "fp32", speed("ours").Mode(1), names, 1, lambda rows: kept.append(len(rows)))
    found = options.compared(world, "0.22", "fp32", speed("ours").Mode(1), names, 1)
    assert kept == [1, 2] and [one["name"] for one in found] == names
    assert found[0]["error"] == "OutOfMemoryError: no room" and found[1]["gain"] > 0
