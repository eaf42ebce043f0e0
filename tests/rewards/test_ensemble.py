"""Several rewards as one, sanity bands, and the components that say so in a spec."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from smpo.components.rewards import ClipPreference, Member, Mix, PlaneRadius
from smpo.kinds import Runtime
from smpo.rewards.bands import banded
from smpo.rewards.ensemble import EnsembleScorer, Population, majority, preference


class Told:
    """A scorer that says what it is told: pictures are their own scores."""

    def __init__(self, column: int) -> None:
        self.key, self.column = f"told-{column}", column

    def __call__(self, pictures: Sequence[Any], prompts: Sequence[str]) -> Tensor:
        return torch.tensor([float(picture[self.column]) for picture in pictures])


PICTURES: list[Any] = [(1.0, 30.0), (2.0, 10.0), (3.0, 20.0), (9.0, 20.0)]
PROMPTS = [""] * 4


def ensemble(how: Any, *populations: Population) -> EnsembleScorer:
    return EnsembleScorer([(Told(i), one) for i, one in enumerate(populations)], how)


def test_sums_are_weighted_means_of_standardised_scores() -> None:
    scorer = ensemble("sum", Population(3, centre=2, scale=1), Population(1, centre=20, scale=10))
    assert scorer(PICTURES, PROMPTS).tolist() == [-0.5, -0.25, 0.75, 5.25]


def test_ranks_are_quantiles_of_a_population_not_of_the_batch() -> None:
    scorer = ensemble("rank", Population(knots=(1, 2, 4)), Population(knots=(10, 30)))
    assert scorer(PICTURES, PROMPTS).tolist() == [0.5, 0.25, 0.625, 0.75]
    assert scorer(PICTURES[:1], PROMPTS[:1]).tolist() == [0.5]
    with pytest.raises(ValueError, match="rising"):
        ensemble("rank", Population(knots=(1, 1)))


def test_votes_count_members_and_halve_ties() -> None:
    scorer = ensemble("vote", Population(2, centre=2), Population(1, centre=20))
    expected = torch.tensor([1 / 3, 1 / 3, 2.5 / 3, 2.5 / 3])
    torch.testing.assert_close(scorer(PICTURES, PROMPTS), expected)


def test_for_pairs_ranks_and_votes_are_one_number() -> None:
    first = torch.tensor([[3.0, 1, 5], [0, 0, 2], [1, 1, 1]])
    second = torch.tensor([[2.0, 2, 5], [1, 1, 1], [0, 1, 3]])
    weights = torch.tensor([1.0, 1, 1])
    share = preference(first, second, weights)
    assert share.tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 2])
    torch.testing.assert_close(preference(second, first, weights), 1 - share)
    assert majority(share).tolist() == [1, 0, 0.5]
    # Borda: of two, the better has rank 1 and the other 0; ties share.
    ranks = torch.stack([first, second]).double().sort(0).indices.argsort(0).double()
    ranks = torch.where((first == second)[None], 0.5, ranks)
    torch.testing.assert_close(ranks.mean(1)[0], share)


def test_prefer_is_not_a_difference_of_scores() -> None:
    """Three members may prefer a to b, b to c and c to a."""
    a, b, c = (3, 1, 2), (2, 3, 1), (1, 2, 3)
    scorer = ensemble("sum", Population(), Population(), Population())
    shares = scorer.prefer([a, b, c], [b, c, a], PROMPTS[:3])
    assert (shares > 0.5).all()


def test_keys_follow_members_weights_and_rule() -> None:
    one, two = Population(knots=(0.0, 1.0)), Population(2, knots=(0.0, 1.0))
    keys = [ensemble("sum", one, one).key, ensemble("sum", one, two).key, ensemble("rank", one, one).key]
    assert len({*keys, ensemble("sum", one).key}) == 4
    assert keys[0] == ensemble("sum", one, one).key


# ------------------------------------------------------------------------------------------- bands


def test_most_scores_outside_the_band_are_worth_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    scorer = banded(Told(0), (0.0, 1.0), "told")
    assert scorer.key == "told-0"
    with caplog.at_level(logging.WARNING):
        assert scorer([(0.5,)] * 10 + [(7.0,)] * 9, [""] * 19).tolist() == [0.5] * 10 + [7.0] * 9
        assert not caplog.records, "odd pictures are normal"
        for _ in range(3):
            scorer([(7.0,)] * 9, [""] * 9)
    assert len(caplog.records) == 1
    assert "of told lie outside 0 to 1" in caplog.records[0].getMessage()


def test_few_scores_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    banded(Told(0), (0.0, 1.0), "told")([(7.0,)] * 4, [""] * 4)
    assert not caplog.records
    plain = Told(0)
    assert banded(plain, None, "told") is plain


def test_a_band_is_a_range() -> None:
    with pytest.raises(ValueError, match="is no range"):
        ClipPreference(weights="x", band=(1.0, 1.0))


# ------------------------------------------------------------------------------------ in a spec


def test_members_are_cards_components_or_settings() -> None:
    mix = Mix.model_validate(
        {
            "how": "rank",
            "members": [
                {"reward": "pickscore", "weight": 2.0},
                {"reward": {"use": "hpsv2.1", "antialias": False}},
                {"reward": {"use": "plane-radius", "scale": 2.0}, "knots": [0.0, 1.0]},
            ],
        }
    )
    first, second, third = (member.reward for member in mix.members)
    assert isinstance(first, ClipPreference) and first.weights == "yuvalkirstain/PickScore_v1"
    assert isinstance(second, ClipPreference) and second.file == "HPS_v2.1_compressed.pt" and not second.antialias
    assert third == PlaneRadius(scale=2.0)
    again = Mix.model_validate_json(mix.model_dump_json())
    assert again == mix, "a resolved spec says everything"
    assert mix.model_dump()["members"][0]["reward"]["band"] == (0.1, 0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": [{"reward": "pickscor"}]}, "no reward is called `pickscor`"),
        ({"members": [{"reward": {"weights": "x"}}]}, "a member is the name of a reward"),
        ({"members": [{"reward": {"use": "pickscore", "scald": 1}}]}, "`pickscore`: scald: Extra inputs"),
        ({"members": []}, "at least 1 item"),
        ({"how": "rank", "members": [{"reward": "plane-radius"}]}, "its usual scores must be known"),
        ({"how": "rank", "members": [{"reward": "pickscore", "knots": [2.0, 1.0]}]}, "knots must rise"),
        ({"how": "vote", "members": [{"reward": "plane-radius"}]}, "its usual score must be known"),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mix.model_validate(settings)


def test_a_mix_scores_and_checks_its_members(tmp_path: Path) -> None:
    import numpy as np

    radius = {"reward": "plane-radius", "centre": 0.0}
    mix = Mix.model_validate({"members": [radius, {**radius, "weight": 3.0}]})
    assert mix.check() is None
    points = [np.array([1.0, 0.0], np.float32)]
    from smpo.worlds.plane.world import CONDITIONS

    prompt = str(next(iter(CONDITIONS)))
    alone = PlaneRadius().load(Runtime())(points, [prompt])
    torch.testing.assert_close(mix.load(Runtime())(points, [prompt]), alone)
    absent = Mix.model_validate({"members": [radius, {"reward": {"use": "clip-preference", "weights": "./nowhere"}}]})
    assert "./nowhere" in (absent.check() or "")


def test_check_names_absent_files(tmp_path: Path) -> None:
    reward = ClipPreference(weights=str(tmp_path), file="HPS.pt")
    assert reward.check() == f"the folder `{tmp_path}` has no HPS.pt"
    (tmp_path / "HPS.pt").touch()
    assert reward.check() is None
    assert "is neither a folder here nor a hub id" in (ClipPreference(weights="./nowhere").check() or "")


def test_members_default_to_equal_weights() -> None:
    assert Member.model_validate({"reward": "plane-radius"}).weight == 1.0
