"""What plans say of a GPU's memory: the parts, the moments, the cards. tests/pretended holds the sums against torch."""

import json
from pathlib import Path

import pytest

from smpo.app.plan.gpu_memory import CARDS, SLACK, memory_of
from smpo.app.plan.gpu_time import state_bytes
from smpo.app.plan.plan import make_plan
from smpo.app.plan.workload import ARCHITECTURES
from smpo.components.optimisers import Adafactor, AdamW
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import resolve
from tests.app.plan.test_gpu_time import work
from tests.cli.words import smpo

HERE = Path(__file__).parents[3]
SD15, SDXL = ARCHITECTURES[:2]
PRESETS = [f"{arch}_smpo_{card}gb" for arch in ("sdxl", "sd15") for card in (24, 48, 80, 141)]


def parts(network=SDXL, **changes):
    return memory_of(network, work(**changes)).parts


def allocated(network=SDXL, **changes):
    return memory_of(network, work(**changes)).allocated_gb


@pytest.mark.parametrize(("network", "without", "adamw"), [(SD15, 10.3, 17.2), (SDXL, 30.8, 51.3)])
def test_weights_casts_gradients_and_state_weigh_what_was_counted(network, without, adamw):
    for state, expected in ((0.0, without), (8.0, adamw)):
        found = parts(network, state_bytes=state, micro_batch=1)
        assert found["weights"] + found["training"] + found["casts"] == pytest.approx(expected, abs=0.1)
        assert sum(found.values()) == pytest.approx(allocated(network, state_bytes=state, micro_batch=1))


def test_adafactor_s_state_follows_from_the_shapes():
    """transformers keeps rows and columns of a tensor's last two sides: of a kernel of 3 x 3, two thirds of it."""
    import torch

    for shape in ((8, 4), (8, 4, 3, 3), (8, 4, 1, 1), (8,)):
        weight = torch.nn.Parameter(torch.ones(shape))
        rule = Adafactor().build([weight], 1e-3)
        weight.grad = torch.ones(shape)
        rule.step()
        state = sum(
            value.numel() for value in rule.state[weight].values() if isinstance(value, torch.Tensor) and value.dim()
        )
        rows = weight.shape[:-1].numel() + (weight.shape[:-2] + weight.shape[-1:]).numel()
        assert state == (rows if len(shape) > 1 else weight.numel())
    for network, gigabytes in ((SD15, 1.9), (SDXL, 1.0)):
        assert state_bytes(Adafactor(), network) * network.parameters / 1e9 == pytest.approx(gigabytes, abs=0.1)
        assert state_bytes(AdamW(), network) == 8


def test_a_pass_takes_more_with_each_image_and_less_where_it_is_computed_again():
    found = [allocated(checkpointing=how) for how in (True, "selective", False)]
    assert found == sorted(found)
    assert allocated(trainable=23_224_320) < allocated() - 40
    one, two, three = (allocated(micro_batch=micro) for micro in (1, 2, 3))
    assert three - two == pytest.approx(two - one) and two > one


def test_several_levels_of_a_pair_hold_as_many_activations():
    one, two, four = (parts(micro_batch=1, levels=levels, visits=levels)["activations"] for levels in (1, 2, 4))
    assert four - one == pytest.approx(3 * (two - one)) and two > 1.9 * one
    assert four == pytest.approx(parts(micro_batch=4)["activations"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_switched_on_weighs_what_it_should(precision):
    """Bytes a parameter, over a plain training in this precision."""
    wide = precision == "fp32"

    def more(**changes):
        found, plain = (parts(precision=precision, **told) for told in (changes, {}))
        names = ("weights", "training")
        return sum(found[name] - plain[name] for name in names) * 1e9 / SDXL.parameters

    assert more(average=True) == pytest.approx(4)
    assert more(state_bytes=2.0) == pytest.approx(-6)
    assert more(reference=False) == pytest.approx(-4 if wide else -2)
    assert more(reference=False) < more(offloaded=True) < 0.9 * more(reference=False), (
        "two blocks stay, and little else"
    )
    assert more(shadow=True) == pytest.approx(0 if wide else 2)
    assert more(trainable=0, dora=True) - more(trainable=0) == pytest.approx(0 if wide else 2)
    assert more(processes=2) == pytest.approx(4), "the buckets of DDP"


def test_an_adapter_brings_its_own_weights():
    few, none = (parts(trainable=size) for size in (23_224_320, 0))
    assert few["training"] - none["training"] == pytest.approx(23_224_320 * 16 / 1e9)
    attention, everything = (allocated(trainable=1, attention_alone=alone) for alone in (True, False))
    assert attention < everything


def test_a_single_micro_batch_has_no_gradients_yet():
    one, two = (memory_of(SDXL, work(share_of_device=share, micro_batch=4)) for share in (4, 8))
    pairs = two.parts["pairs"] - one.parts["pairs"]
    assert two.allocated_gb - one.allocated_gb - pairs == pytest.approx(4 * SDXL.parameters / 1e9)
    light = memory_of(SD15, work(share_of_device=1, micro_batch=1, checkpointing=True))
    assert light.moment == "update", "the gradients weigh more than the pass that made them"


def test_a_large_pass_of_an_inversion_is_the_highest_moment():
    usual = memory_of(SD15, work(checkpointing=True, micro_batch=1))
    large = memory_of(SD15, work(checkpointing=True, micro_batch=1, inversion_rows=64, window=64))
    assert (usual.moment, large.moment) == ("loss", "inversion")
    rows = (
        large.parts["activations"]
        / memory_of(SD15, work(checkpointing=True, micro_batch=1, inversion_rows=32, window=64)).parts["activations"]
    )
    assert rows == pytest.approx(2)
    few = memory_of(SD15, work(checkpointing=True, micro_batch=1, inversion_rows=10_000, window=8))
    assert few.parts["activations"] < large.parts["activations"], "a window of 8 pairs has 16 images"
    by_reference = memory_of(
        SD15, work(checkpointing=True, micro_batch=1, inversion_rows=64, window=64, inverts="reference")
    )
    assert by_reference.parts["casts"] == 0 < large.parts["casts"]
    drawn = memory_of(SD15, work(checkpointing=True, micro_batch=1, inversion_rows=64, inverts=None))
    assert drawn.moment == "loss"


def test_pairs_that_wait_and_windows_of_them_are_counted():
    """SDXL, 1024 pairs at once: 2 images x (mean, deviation, prompt) x 4 bytes, and what they are inverted to."""
    all_of_them = parts(share_of_device=1024)["pairs"]
    row, found = 4 * 2 * (2 * SDXL.latent + SDXL.text), 4 * 2 * 3 * SDXL.latent
    assert all_of_them == pytest.approx(1024 * (2 * row + found) / 1e9)
    assert parts(share_of_device=1024, window=32)["pairs"] == pytest.approx((1024 * row + 32 * (row + found)) / 1e9)
    alone = parts(share_of_device=1024, window=1)["pairs"]
    assert alone == pytest.approx((1024 * row + 4 * found) / 1e9), "a micro-batch is the least, and isn't joined"
    assert parts(share_of_device=1024, means=True)["pairs"] - all_of_them == pytest.approx(
        1024 * 4 * 2 * 5 * SDXL.latent / 1e9
    )


def test_what_is_reserved_is_more_than_what_is_allocated():
    for how in (True, "selective", False):
        found = memory_of(SDXL, work(checkpointing=how))
        assert found.allocated_gb < found.reserved_gb < 1.1 * found.allocated_gb


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_leaves_a_tenth_of_its_card(name):
    card = int(name.rsplit("_", 1)[1].removesuffix("gb"))
    found = make_plan(resolve(HERE / "experiments" / f"{name}.yaml", skeleton=ExperimentSpec))
    assert found.memory.card_gb == card and found.memory.reserved_gb <= SLACK * card
    smaller = [size for size in (24, 48, 80, 141) if size < card]
    assert all(found.memory.reserved_gb > SLACK * size for size in smaller), "the card below would do"
    assert not [one for one in found.gpus if one.gpu.startswith(f"{card} GB") and not one.fits]
    assert found.trainable == (23_224_320 if name == "sdxl_smpo_24gb" else found.trainable)


def test_a_plan_says_what_memory_is_needed_and_in_which_card_it_fits(capfd):
    said = smpo(capfd, "plan", HERE / "experiments" / "sdxl_smpo_48gb.yaml").out
    (line,) = [line for line in said.splitlines() if line.startswith("memory ")]
    assert "GB of device memory (reserved; " in line and line.endswith("fits a 48 GB card")
    said = smpo(
        capfd,
        "plan",
        HERE / "experiments" / "sdxl_smpo.yaml",
        "-s",
        "runtime.gradient_checkpointing=false",
        "-s",
        "runtime.micro_batch=64",
    )
    assert "fits no card that is known" in said.out
    told = json.loads(smpo(capfd, "plan", HERE / "experiments" / "sd15_smpo_24gb.yaml", "--json").out)
    memory = told["plan"]["memory"]
    assert memory["card_gb"] == 24 and memory["allocated_gb"] == pytest.approx(sum(memory["parts"].values()))
    assert memory["card_gb"] in CARDS


def test_the_counts_are_those_of_the_architectures_that_plans_know():
    told = json.loads((HERE / "smpo" / "app" / "plan" / "activations.json").read_text())["gb_per_image"]
    assert set(told) == {network.name for network in ARCHITECTURES}
    for network in ARCHITECTURES:
        for dora, adapter in ((False, None), (False, 1), (True, 1)):
            for how in (True, "selective", False):
                for precision in ("fp32", "fp16", "bf16"):
                    found = memory_of(
                        network, work(checkpointing=how, precision=precision, trainable=adapter, dora=dora)
                    )
                    assert found.parts["activations"] > 0
