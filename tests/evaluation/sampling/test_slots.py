"""A picture is a function of its prompt, its number and the first seed; of nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from smpo.errors import RunError
from smpo.evaluation.sampling.slots import sample_all, slots, spread
from smpo.kinds import Prompt
from tests.evaluation.toys import QUICK, ToyModel, prompts


def seeds(asked: list[Prompt], images: int = 2, seed: int = 7) -> dict[tuple[str, int], int]:
    return {(slot.text, slot.image): slot.seed for slot in slots(asked, images=images, seed=seed)}


def test_seeds_depend_on_prompt_and_number_alone() -> None:
    everything = seeds(prompts(20), images=4)
    assert len(set(everything.values())) == 80
    for key, seed in seeds(prompts(20)[7:3:-1], images=2).items():
        assert everything[key] == seed
    assert not set(everything.values()) & set(seeds(prompts(20), seed=8).values())


def test_seeds_are_fixed_for_all_time() -> None:
    """Results that are kept would lose their pairs if this changed."""
    slot = slots([Prompt("a red circle", group="red circle")], images=1, seed=1000)[0]
    assert slot.seed == 68615333902366
    assert 0 <= slot.seed < 2**48


def test_a_repeated_prompt_is_a_new_draw_and_its_group_tells_it_apart() -> None:
    same = slots([Prompt("x"), Prompt("y"), Prompt("x"), Prompt("x", group="g")], images=1, seed=0)
    assert len({slot.seed for slot in same}) == 4
    moved = slots([Prompt("x", category="c"), Prompt("x")], images=1, seed=0)
    assert [slot.seed for slot in moved] == [same[0].seed, same[2].seed]


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_batches_do_not_show(batch: int) -> None:
    drawn = sample_all(ToyModel(), prompts(5), replace(QUICK, batch=batch))  # type: ignore[arg-type]
    alone = sample_all(ToyModel(), prompts(5)[3:4], QUICK)  # type: ignore[arg-type]
    assert [len(row) for row in drawn] == [2] * 5
    assert [p.tobytes() for p in drawn[3]] == [p.tobytes() for p in alone[0]]  # type: ignore[union-attr]


def test_a_model_that_loses_pictures_is_caught() -> None:
    class Forgetful(ToyModel):
        def sample(self, prompts, seeds, **more):  # type: ignore[no-untyped-def]
            return super().sample(prompts, seeds, **more)[1:]

    with pytest.raises(RunError, match="drew 3 pictures for 4 prompts"):
        sample_all(Forgetful(), prompts(4), replace(QUICK, images=1))  # type: ignore[arg-type]


def test_sizes_are_by_lot_and_in_turn() -> None:
    """Whatever other prompts there are; and about as often each."""
    sizes = ((8, 8), (8, 16), (16, 8))

    def shapes(asked: list[Prompt]) -> dict[tuple[str, int], object]:
        drawn = slots(asked, images=4, seed=0, sizes=sizes)
        return {(slot.text, slot.image): slot.size for slot in drawn}

    all_of_them = shapes(prompts(300))
    for key, size in shapes(prompts(300)[200:100:-7]).items():
        assert all_of_them[key] == size
    for prompt in prompts(300)[:20]:
        mine = [all_of_them[prompt.text, image] for image in range(4)]
        assert set(mine) == set(sizes) and mine[0] == mine[3]
    first = Counter(size for (_, image), size in all_of_them.items() if image == 0)
    assert min(first.values()) > 70
    assert {slot.size for slot in slots(prompts(3), images=1, seed=0)} == {None}


def test_a_batch_is_of_one_size() -> None:
    class Sized(ToyModel):
        def sample(self, prompts, seeds, *, size=None, **more):  # type: ignore[no-untyped-def]
            calls.append((len(prompts), size))
            return super().sample(prompts, seeds, **more)

    calls: list[tuple[int, object]] = []
    how = replace(QUICK, batch=3)
    drawn = sample_all(Sized(), prompts(7), replace(how, sizes=((8, 8), (8, 16))))  # type: ignore[arg-type]
    assert {size for _, size in calls} == {(8, 8), (8, 16)} and max(n for n, _ in calls) == 3
    plain = sample_all(Sized(), prompts(7), how)  # type: ignore[arg-type]
    assert [[p.tobytes() for p in row] for row in drawn] == [[p.tobytes() for p in row] for row in plain]  # type: ignore[union-attr]


def test_spread_keeps_shares_order_and_earlier_choices() -> None:
    asked = [Prompt(f"{k}", category="abcd"[k % 4]) for k in range(100)]
    chosen = spread(asked, 20)
    assert Counter(p.category for p in chosen) == dict.fromkeys("abcd", 5)
    assert [asked.index(p) for p in chosen] == sorted(asked.index(p) for p in chosen)
    assert set(spread(asked, 9)) < set(chosen) < set(spread(asked, 21))
    assert spread(asked, None) == spread(asked, 1000) == asked
    assert len(set(spread([Prompt("same")] * 10, 4))) == 1 and len(spread([Prompt("same")] * 10, 4)) == 4
