"""A reference whose blocks come from the host's memory one by one is the reference."""

import copy
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from smpo.errors import MachineError
from smpo.families import offload
from smpo.families.dtypes import frozen_copy
from smpo.families.loading import load_unet
from smpo.families.offload import BlockOffload, blocks_of, resident_bytes
from smpo.kinds import Runtime
from tests.cuda import pretend_memory
from tests.families.test_unet_networks import micro_batch

CPU = torch.device("cpu")


@pytest.fixture
def network() -> UNet2DConditionModel:
    torch.manual_seed(0)
    config = {
        "block_out_channels": (8, 16), "layers_per_block": 1, "sample_size": 8, "norm_num_groups": 4,
        "cross_attention_dim": 8, "attention_head_dim": 2, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return UNet2DConditionModel(**config).requires_grad_(False).eval()


def outputs(network: torch.nn.Module, passes: int = 3) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return [
            network(
                torch.randn(2, 4, 8, 8, generator=random),
                torch.tensor([3, 700]),
                torch.randn(2, 5, 8, generator=random),
            ).sample
            for _ in range(passes)
        ]


def pieces(network: torch.nn.Module) -> set[int]:
    """Storages that hold parameters of blocks."""
    return {p.untyped_storage().data_ptr() for block in blocks_of(network) for p in block.parameters()}


@pytest.mark.parametrize("half", [None, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_are_equal_to_the_bit(network, half, layout) -> None:
    network = frozen_copy(network, CPU, half).to(memory_format=layout)
    plain, moved = network, copy.deepcopy(network)
    BlockOffload(moved, CPU)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half is not None):
        expected, found = outputs(plain), outputs(moved)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_two_blocks_at_most_are_on_the_device(network) -> None:
    plain = copy.deepcopy(network)
    BlockOffload(network, CPU)
    host = pieces(network)
    seen: list[int] = []
    for block in blocks_of(network):
        block.register_forward_hook(
            lambda *_: seen.append(
                sum({p.untyped_storage().data_ptr() for p in one.parameters()} != host for one in blocks)
            )
        )
    blocks = blocks_of(network)
    outputs(network)
    assert len(host) == 1 and max(seen) == 2 and len(seen) == 3 * len(blocks)
    largest = max(sum(p.nbytes for p in block.parameters()) for block in blocks)
    whole = sum(p.nbytes for p in plain.parameters())
    assert 2 * largest < resident_bytes(plain) < whole


def test_the_next_block_is_copied_while_one_computes(network, monkeypatch) -> None:
    """As soon as the order is known: in the first pass each is copied when it is needed."""
    exact, order = BlockOffload._copy, []
    moved = BlockOffload(network, CPU)
    blocks = blocks_of(network)
    host = {next(block.parameters()).data_ptr(): i for i, block in enumerate(blocks)}

    def copied(block, number):
        order.append(("copy", host[block.host.data_ptr()]))
        exact(moved, block, number)

    monkeypatch.setattr(moved, "_copy", copied)
    for i, block in enumerate(blocks):
        block.register_forward_hook(lambda *_, i=i: order.append(("done", i)))
    passes = []
    for _ in range(3):
        order.clear()
        outputs(network, passes=1)
        passes.append(list(order))
    turns = [i for what, i in passes[0] if what == "done"]
    assert passes[0] == [(what, i) for i in turns for what in ("copy", "done")]
    following = [*turns[1:], turns[0]]
    assert passes[2] == [
        entry for i, after in zip(turns, following, strict=True) for entry in (("copy", after), ("done", i))
    ]


def test_an_interrupted_pass_leaves_the_network_whole(network) -> None:
    plain = copy.deepcopy(network)
    BlockOffload(network, CPU)
    broken = blocks_of(network)[2].register_forward_hook(lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        outputs(network)
    broken.remove()
    expected, found = outputs(plain), outputs(network)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    weights = zip(plain.state_dict().items(), network.state_dict().items(), strict=True)
    assert all(name == same and torch.equal(one, other) for (name, one), (same, other) in weights)


def test_memory_that_can_t_be_pinned_is_an_error_in_words(network, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ...")

    monkeypatch.setattr(offload.torch, "empty", refuse)
    with pytest.raises(MachineError, match=r"GB of host memory can't be pinned .*: CUDA error: out of memory$"):
        BlockOffload(network, CPU)


def test_on_a_cpu_a_reference_has_nowhere_to_be_moved_to(sd_folder: Path) -> None:
    held, away = (load_unet(sd_folder, runtime=Runtime(offload_reference=is_)) for is_ in (False, True))
    x, t, cond = micro_batch(held)
    assert torch.equal(away.predict(x, t, cond, reference=True), held.predict(x, t, cond, reference=True))
    assert away.networks.reference is not None
    assert not any(block._forward_pre_hooks for block in blocks_of(away.networks.reference))


def test_on_a_card_copies_and_passes_wait_for_each_other(network, monkeypatch) -> None:
    """A block computes after its copy has ended, and a slot is filled after the block that used it."""
    expected = outputs(network)
    pretend_memory(monkeypatch)
    moved = BlockOffload(network, torch.device("cuda"))
    assert all(torch.equal(one, other) for one, other in zip(expected, outputs(network), strict=True))
    copied, used = ([getattr(slot, name) for slot in moved._slots] for name in ("copied", "used"))
    waited = [call.args[0] for call in torch.cuda.current_stream.return_value.wait_event.call_args_list]
    assert len(waited) == 3 * len(blocks_of(network)) and set(waited) == set(copied)
    assert {call.args[0] for call in moved._stream.wait_event.call_args_list} == set(used)
    assert all(event.record.called for event in (*copied, *used))
