"""A model whose reference nobody needs holds one network, and brings the other when it is asked for."""

from pathlib import Path

import numpy as np
import torch

from smpo.components.models import Plane
from smpo.families.loading import load_unet
from smpo.families.lora import Adapter
from smpo.kinds import Conditioning, Runtime

LEAN = Runtime(reference=False)


def disturbed(network: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)


def weights_alive(part: object) -> int:
    """Distinct parameters that hang on an object."""
    networks = [value for value in vars(part).values() if isinstance(value, torch.nn.Module)]
    return sum({p.data_ptr(): p.numel() for network in networks for p in network.parameters()}.values())


def test_plane_fetches_the_base_it_did_not_hold() -> None:
    full, lean = Plane().load(Runtime()), Plane().load(LEAN)
    assert weights_alive(full) == 2 * weights_alive(lean)
    assert full.weights_key == lean.weights_key
    x, t, cond = (
        torch.randn(3, 2, 1, 1),
        torch.tensor([1, 500, 999]),
        Conditioning({"condition": torch.arange(3)}),
    )
    disturbed(lean.policy)
    assert weights_alive(full) == 2 * weights_alive(lean), "training and the policy's samples need no second one"
    with torch.no_grad():
        ours, theirs = lean.predict(x, t, cond, reference=True), full.predict(x, t, cond)
    assert torch.equal(ours, theirs)


def test_unet_holds_one_network_and_saves_a_pipeline(sd_folder: Path, tmp_path: Path) -> None:
    full, lean = load_unet(sd_folder, runtime=Runtime()), load_unet(sd_folder, runtime=LEAN)
    assert weights_alive(full.networks) == 2 * weights_alive(lean.networks)
    disturbed(lean.policy)
    lean.save(tmp_path / "model")
    assert (tmp_path / "model" / "model_index.json").exists(), "a whole model, not an adapter"
    one = lean.sample(["a"], [1], guidance=2.0, steps=2, reference=True)[0]
    other = full.sample(["a"], [1], guidance=2.0, steps=2, reference=True)[0]
    assert np.array_equal(np.asarray(one), np.asarray(other))
    changed = lean.sample(["a"], [1], guidance=2.0, steps=2)[0]
    assert not np.array_equal(np.asarray(one), np.asarray(changed))


def test_an_adapter_never_needed_a_second_network(sd_folder: Path) -> None:
    full, lean = (load_unet(sd_folder, adapter=Adapter(rank=2), runtime=r) for r in (Runtime(), LEAN))
    assert weights_alive(full.networks) == weights_alive(lean.networks)
    x, t = torch.randn(1, *lean.latent_shape), torch.tensor([500])
    cond = Conditioning(lean.encode_prompts(["a"]))
    base = full.predict(x, t, cond, reference=True)
    disturbed(lean.policy)
    assert torch.equal(lean.predict(x, t, cond, reference=True), base)
