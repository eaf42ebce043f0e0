"""What is made on a GPU lies on it, in a dtype that it has. Tensors here have a device and no content."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from smpo.maths.draws import PositionDraws
from smpo.maths.schedule import NoiseSchedule, carried, exact, sent

APPLE = torch.device("mps", 0)


class WithoutDoubles(TorchDispatchMode):
    """Apple's GPUs refuse float64."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor) and one.device == APPLE and one.dtype == torch.float64:
                raise TypeError(f"{func} makes float64 on {APPLE}")
        return made


@pytest.fixture
def apple():
    """Inside, tensors on `mps:0` can be made and computed with."""
    table = NoiseSchedule.scaled_linear()
    with FakeTensorMode() as fake, WithoutDoubles():
        yield replace(table, alphas_cumprod=fake.from_tensor(table.alphas_cumprod))


def test_the_schedule_and_the_draws_of_an_apple_gpu_have_no_float64(apple):
    schedule = apple.to(APPLE)
    assert (schedule.alphas_cumprod.device, schedule.alphas_cumprod.dtype) == (APPLE, torch.float32)
    noise = PositionDraws(7, [3, 4], APPLE).normal("noise", (4, 8, 8))
    assert (noise.device, noise.dtype, noise.shape) == (APPLE, torch.float32, (2, 4, 8, 8))
    x_t = schedule.add_noise(noise, noise, carried(torch.tensor([5, 6]), APPLE))
    assert schedule.noise_between(noise, x_t, sent([5, 6], APPLE)).device == APPLE
    wide = exact(x_t)
    assert (wide.device, wide.dtype) == (torch.device("cpu"), torch.float64)
    with pytest.raises(TypeError, match="float64"):
        x_t.double()


def test_integers_reach_a_gpu_without_waiting_for_it(monkeypatch):
    """A CPU build of torch can't move anything there; the call that would is seen."""
    asked = []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *where, **how: asked.append((where, how)) or self)
    sent([1, 2], torch.device("cuda"))
    carried(torch.arange(2), torch.device("cpu"))
    there = [{"non_blocking": True}, {"non_blocking": False}]
    assert asked == [((torch.device(name),), how) for name, how in zip(("cuda", "cpu"), there, strict=True)]
