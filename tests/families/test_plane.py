"""The plane family keeps the protocol's promises, on the weights that ship."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from smpo.errors import MachineError, RunError, SmpoError
from smpo.families.plane import BASE, PlaneDenoiser, load_plane
from smpo.kinds import Conditioning, Placement
from smpo.maths.hops import InversionConfig
from smpo.maths.inversion import denoise, invert
from smpo.worlds.plane.network import read_network, start_noise
from smpo.worlds.plane.world import CONDITIONS, condition_of, off_axis, radius
from tools.make_plane import base_accuracy, draw_pairs, pretrain

PROMPTS = [CONDITIONS[index % 8] for index in range(2000)]


@pytest.fixture(scope="module")
def plane() -> PlaneDenoiser:
    return load_plane()


def nudged(plane: PlaneDenoiser) -> PlaneDenoiser:
    with torch.no_grad():
        for parameter in plane.policy.parameters():
            parameter.mul_(1.02)
    return plane


def a_batch(plane: PlaneDenoiser, count: int = 32) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, *plane.latent_shape, generator=generator)
    t = torch.randint(0, plane.schedule.T, (count,), generator=generator)
    return x, t, Conditioning(plane.encode_prompts([*PROMPTS[: count - 1], ""]))


def test_samples_are_the_data(plane: PlaneDenoiser) -> None:
    points = np.array(plane.sample(PROMPTS, range(2000), guidance=1.0, steps=50), dtype=np.float64)
    conditions = condition_of(PROMPTS)
    along = radius(points, conditions)
    inner = along < 1
    assert inner.mean() == pytest.approx(0.5, abs=0.06)
    assert along[inner].mean() == pytest.approx(0.6, abs=0.03)
    assert along[~inner].mean() == pytest.approx(1.4, abs=0.04)
    # 0.096 in the data; fifty deterministic steps shrink it, also with the exact denoiser.
    assert off_axis(points, conditions).mean() == pytest.approx(0.075, abs=0.01)


def test_the_shipped_denoiser_is_close_to_the_exact_one() -> None:
    facts = base_accuracy(read_network(BASE), count=5000)
    assert facts["mean squared error of the noise prediction against the exact one"] < 1e-3


def test_guidance_pulls_towards_the_prompt(plane: PlaneDenoiser) -> None:
    one, three = (
        np.array(plane.sample(PROMPTS[:400], range(400), guidance=guidance, steps=20)) for guidance in (1.0, 3.0)
    )
    conditions = condition_of(PROMPTS[:400])
    assert off_axis(three, conditions).mean() < off_axis(one, conditions).mean() / 2


def test_policy_and_reference_start_equal_to_the_bit(plane: PlaneDenoiser) -> None:
    x, t, cond = a_batch(plane)
    assert torch.equal(plane.predict(x, t, cond), plane.predict(x, t, cond, reference=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_only_the_policy_learns(precision: str) -> None:
    plane = load_plane(precision=precision)  # type: ignore[arg-type]
    x, t, cond = a_batch(plane)
    before = plane.predict(x, t, cond, reference=True)
    out = plane.predict(x, t, cond)
    assert out.dtype == torch.float32 and out.requires_grad and not before.requires_grad
    assert torch.equal(out, before)
    nudged(plane)
    assert torch.equal(plane.predict(x, t, cond, reference=True), before)
    assert not torch.equal(plane.predict(x, t, cond), out)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_sample_depends_on_its_prompt_and_seed_alone(plane: PlaneDenoiser, guidance: float) -> None:
    prompts, seeds = PROMPTS[:16], list(range(100, 116))
    together = plane.sample(prompts, seeds, guidance=guidance, steps=10)
    alone = plane.sample(prompts[5:6], seeds[5:6], guidance=guidance, steps=10)
    turned = plane.sample(prompts[::-1], seeds[::-1], guidance=guidance, steps=10)
    assert np.allclose(together[5], alone[0], atol=1e-5)
    assert np.allclose(together, turned[::-1], atol=1e-5)


def test_neighbouring_seeds_start_independently() -> None:
    noise = start_noise(range(5000)).reshape(-1, 2).numpy()
    assert abs(noise.mean()) < 0.03 and noise.std() == pytest.approx(1, abs=0.03)
    assert abs(np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]) < 0.05


def test_inversion_comes_back(plane: PlaneDenoiser) -> None:
    """Up by inversion and down by DDIM; ReNoise returns closer to where it began."""
    points = plane.sample(PROMPTS[:256], range(256), guidance=1.0, steps=50)
    x0 = plane.encode_pictures(points, [Placement()] * 256)["mean"]
    cond = Conditioning(plane.encode_prompts(PROMPTS[:256]))
    t = torch.full((256,), 700)

    def predict(x: torch.Tensor, t: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return plane.predict(x, t, cond.take(rows), reference=True)

    errors = []
    for refinements in (0, 1):
        noised = invert(x0, t, predict, plane.schedule, InversionConfig(steps=10, refinements=refinements))
        back = denoise(noised.x_t, t, predict, plane.schedule, steps=10)
        errors.append(float((back - x0).flatten(1).norm(dim=1).mean()))
    plain, refined = errors
    assert refined < plain < 0.15 and refined < 0.1


def test_points_are_their_own_latents(plane: PlaneDenoiser) -> None:
    encoded = plane.encode_pictures([np.array([0.5, -1.0]), np.array([0.0, 2.0])], [Placement(), Placement()])
    assert encoded["mean"].shape == (2, 2, 1, 1)
    assert encoded["mean"].flatten().tolist() == [0.5, -1.0, 0.0, 2.0]
    assert not encoded["std"].any()


def test_what_has_no_meaning_in_the_plane_is_refused(plane: PlaneDenoiser) -> None:
    with pytest.raises(RunError, match="mirrored"):
        plane.encode_pictures([np.zeros(2)], [Placement(flip=True)])
    with pytest.raises(SmpoError, match="a red circle"):
        plane.encode_prompts(["east", "a red circle"])


def test_the_empty_prompt_is_the_null_class(plane: PlaneDenoiser) -> None:
    assert plane.encode_prompts(["", "north", "east"])["condition"].tolist() == [8, 2, 0]


def test_a_saved_policy_reopens_as_it_was(tmp_path: Path) -> None:
    plane = nudged(load_plane())
    lines = plane.save(tmp_path / "policy")
    assert {file.name for file in (tmp_path / "policy").iterdir()} == {"model.safetensors", "config.json"}
    again = load_plane(tmp_path / "policy", reference=BASE)
    x, t, cond = a_batch(plane)
    for reference in (False, True):
        assert torch.equal(
            plane.predict(x, t, cond, reference=reference), again.predict(x, t, cond, reference=reference)
        )
    assert any("load_plane" in line for line in lines)


def test_the_reference_is_known_by_its_weights(tmp_path: Path) -> None:
    """Not by the policy, which moves, nor by the place they lie in."""
    plane = load_plane()
    key = plane.weights_key
    nudged(plane).save(tmp_path)
    assert load_plane(tmp_path, reference=BASE).weights_key == key == load_plane(BASE).weights_key
    assert load_plane(tmp_path).weights_key != key


def test_saving_finds_the_network_inside_a_wrapper(tmp_path: Path) -> None:
    plane = load_plane()
    plane.policy = torch.nn.DataParallel(plane.policy)
    plane.save(tmp_path)
    assert load_plane(tmp_path).policy.state_dict().keys() == read_network(BASE).state_dict().keys()


def test_absent_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="there are no plane weights"):
        load_plane(tmp_path)


def test_making_is_a_function_of_the_seed() -> None:
    """A few steps, twice: the same network, the same pairs, the same votes."""
    made = [pretrain(steps=3, seed=7) for _ in range(2)]
    for one, other in zip(made[0].parameters(), made[1].parameters(), strict=True):
        assert torch.equal(one, other)
    (first, _, _, votes), (first_again, _, _, votes_again) = (draw_pairs(network, 32, seed=7) for network in made)
    assert np.array_equal(first, first_again) and np.array_equal(votes.first, votes_again.first)
