"""Copies between the CPU and a card go through pinned memory, and wait once at most."""

import pytest
import torch

from smpo.imaging.transfer import stack_on, to_cpu, to_device
from tests.cuda import OnCard, pretend_memory

CARD = torch.device("cuda")


@pytest.fixture
def copies(monkeypatch):
    """What is copied to and from a pretended card, as `(where, non_blocking)`; also what is pinned."""
    pretend_memory(monkeypatch)
    seen, plain, pin = [], torch.Tensor.to, torch.Tensor.pin_memory

    def to(self, *where, non_blocking=False):
        seen.append((where[0], non_blocking))
        return plain(self, *where)

    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: seen.append("pinned") or pin(self))
    return seen


def test_a_tensor_is_pinned_and_not_waited_for(copies):
    assert to_device(torch.arange(3), CARD).tolist() == [0, 1, 2]
    assert copies == ["pinned", (CARD, True)]
    copies.clear()
    to_device(torch.arange(3), torch.device("cpu"))
    assert copies == [(torch.device("cpu"), False)]


def test_tensors_are_stacked_where_they_are_copied_from(copies):
    assert stack_on(CARD, [torch.zeros(2), torch.ones(2)]).tolist() == [[0, 0], [1, 1]]
    assert copies == [(CARD, True)]


def test_all_that_comes_back_is_waited_for_once(copies):
    there = [torch.arange(3).as_subclass(OnCard), torch.ones(2, 2).as_subclass(OnCard)]
    assert [one.tolist() for one in to_cpu(*there)] == [[0, 1, 2], [[1, 1], [1, 1]]]
    torch.cuda.current_stream.assert_called_once_with(OnCard.device)
    torch.cuda.current_stream.return_value.synchronize.assert_called_once_with()
