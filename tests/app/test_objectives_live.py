"""Every objective and inversion through the real assembly, on real plane pairs: what they ask for arrives."""

import math
from pathlib import Path

import pytest
import torch

from smpo.app.build.build import build_run
from smpo.app.plan.plan import make_plan
from smpo.engine.loop import fit
from smpo.errors import SmpoError
from smpo.experiment import ExperimentSpec
from smpo.registry.component import REGISTRY
from smpo.registry.resolve import Resolved, resolve
from tests.cli.words import SMALL_PLANE
from tests.double import in_double, wide

import smpo.components  # noqa: F401, isort: skip -- fills the common registry

FITTING = {
    "kto": ["inversion={use: none, shared: false}"],
    "mapo": ["inversion=none"],
    "dspo": ["inversion=none"],
    "sft": ["inversion=none"],
    "inversion-dpo": ["inversion={use: ddim, steps: 4, by: reference, guidance: 2}", "objective.levels=3"],
}
OBJECTIVES = sorted(set(REGISTRY.of("objective")) - {"csft"})
INVERSIONS = sorted(REGISTRY.of("inversion"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def planned(cache: Path, *sets: str) -> Resolved[ExperimentSpec]:
    path = cache / "spec.yaml"
    path.write_text(SMALL_PLANE)
    return resolve(path, skeleton=ExperimentSpec, sets=[f"runtime.cache={cache}", *sets])


def live(resolved: Resolved[ExperimentSpec]):
    return build_run(resolved.spec, report=None, progress=lambda *_: None, say=pytest.fail)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_as_its_plan_says(name: str, cache: Path) -> None:
    resolved = planned(cache, f"objective.use={name}", *FITTING.get(name, []))
    plan, one = make_plan(resolved), live(resolved)
    asked = {True: 0, False: 0}
    predict = one.session.denoiser.predict

    def counted(x, t, cond, *, reference=False, inverting=False):
        asked[reference] += len(x)
        return predict(x, t, cond, reference=reference)

    one.session.denoiser.predict = counted  # type: ignore[method-assign]
    reports = list(fit(one.session))
    assert all(math.isfinite(value) for report in reports for value in report.metrics.values())
    # A backward counts as two forwards; the inversion's share is an expectation.
    forwards = plan.passes_per_pair - 2 * 2 * one.session.objective.levels_per_pair()
    assert sum(asked.values()) / plan.pairs == pytest.approx(forwards, rel=0.15)
    if not resolved.spec.needs_reference:
        assert asked[True] == 0
        assert one.runtime.reference is False and one.session.denoiser._reference is None


@pytest.mark.parametrize("name", INVERSIONS)
def test_every_inversion_gets_what_it_needs(name: str, cache: Path) -> None:
    steps = [] if name == "none" else ["inversion.steps=4", "inversion.guidance=2"]
    one = live(planned(cache, f"inversion={{use: {name}}}", *steps))
    first = next(iter(fit(one.session)))
    assert first.metrics["loss"] == pytest.approx(math.log(2), abs=1e-5)
    batch = next(iter(one.session.batches(0)))
    assert (batch.unconditional is not None) is (name != "none")


def test_prefixes_need_a_model_that_reads(cache: Path) -> None:
    with pytest.raises(SmpoError, match="no direction"):
        live(planned(cache, "objective.use=csft", "inversion=none"))


@pytest.mark.parametrize(
    ("sets", "word"),
    [
        (["objective.use=mapo"], "`mapo` reads the policy's likelihood"),
        (["objective.use=kto"], "never meant for inverted noise"),
        (["objective.use=kto", "inversion=none"], "share their noise"),
        (["objective.use=dpo"], "acts like `pseudo-labels`"),
        (["objective.use=dpo", "smoothing=label"], "acts like `hard`"),
        (["smoothing=hard"], "Diffusion-DPO with beta 5000"),
        (["objective.use=cdpo", "smoothing=hard"], "plain Diffusion-DPO"),
        (["objective.use=inversion-dpo", "inversion=none"], "own path"),
        (["runtime.diagnose_every=2"], "nothing to look at"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_plans_warn_of_odd_company(sets: list[str], word: str, cache: Path) -> None:
    assert any(word in warning for warning in make_plan(planned(cache, *sets)).warnings)


def test_plans_do_not_warn_of_what_papers_do(cache: Path) -> None:
    assert not make_plan(planned(cache)).warnings, "SmPO"
    for sets in (
        ["objective.use=dpo", "smoothing=hard", "inversion=none"],
        ["objective.use=dpo", "smoothing=hard", "inversion={use: ddim, extra_noise: 0.1}"],
        ["objective.use=kto", "smoothing=hard", "inversion={use: none, shared: false}"],
        ["objective.use=mapo", "smoothing=hard", "inversion=none"],
        ["objective.use=gdpo", "inversion=none"],
    ):
        assert not make_plan(planned(cache, *sets)).warnings, sets


def test_held_out_pairs_are_the_same_for_all_seeds_and_never_trained_on(cache: Path) -> None:
    one, other = (live(planned(cache, "train.holdout=20", f"train.seed={seed}")) for seed in (0, 1))
    assert one.holdout == other.holdout and len(one.holdout.held) == 20
    assert not set(one.holdout.held) & set(one.holdout.trained)
    images = {image for row in one.holdout.held for image in (one.table[row].winner, one.table[row].loser)}
    seen = {shown.image for step in range(4) for sample in one.loader.samples(step) for shown in sample.shown}
    assert seen and not seen & images


def test_holding_nothing_out_leaves_the_identity_alone(cache: Path) -> None:
    plain = planned(cache).identity
    assert planned(cache, "train.holdout=0").identity == plain
    assert planned(cache, "runtime.diagnose_every=3").identity == plain
    assert planned(cache, "train.holdout=5").identity != plain


def test_too_large_a_holdout_is_refused(cache: Path) -> None:
    with pytest.raises(SmpoError, match="to train on"):
        live(planned(cache, "train.holdout=150"))


def test_looks_at_held_out_pairs(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from smpo.engine.monitoring.holdout import Holdout

    in_double(monkeypatch)
    session = live(planned(cache, "train.holdout=40", "train.steps=30", "train.lr=1e-3", "inversion=none"))
    rows = session.holdout.held
    share = torch.tensor([session.table[row].share for row in rows], dtype=torch.float64)

    def holdout(size: int) -> Holdout:
        return Holdout(list(map(wide, session.loader.fixed(rows, size))), share, session.session.settings)

    whole, denoiser = holdout(40), session.session.denoiser
    base = whole.errors(denoiser)
    assert base.shape == (2, 4, 40) and whole.timesteps == [124, 374, 624, 874]
    assert torch.equal(base, whole.errors(denoiser, reference=True)), "policy and base are one before training"
    # Errors of order 1, through five sums of 128 terms: each right to 128 * 2^-53 in the worst case.
    torch.testing.assert_close(base, holdout(7).errors(denoiser), rtol=1e-12, atol=1e-12)
    start = whole.metrics(base, base)
    assert start["accuracy"] == start["accuracy/votes"] == 0.5 and start["margin"] == 0
    list(fit(session.session))
    later = whole.metrics(whole.errors(denoiser), base)
    assert later["accuracy"] > 0.7 and later["margin"] > 0
    assert later["margin"] == pytest.approx(sum(later[f"margin/t{t}"] for t in whole.timesteps) / 4)


def test_a_resumed_run_compares_with_the_same_base(cache: Path, tmp_path: Path) -> None:
    from smpo.app.run.holdout import diagnosis

    class Folder:
        path = tmp_path

        def write_text(self, name: str, text: str) -> None:
            (tmp_path / name).write_text(text)

    resolved = planned(cache, "train.holdout=10", "objective=mapo", "inversion=none", "train.lr=1e-2")
    one, said = live(resolved), []
    spent: list[int] = []
    look = diagnosis(resolved.spec, one, Folder(), 0, said.append, spent.append)  # type: ignore[arg-type]
    assert "10 pairs are held out" in said[0]
    list(fit(one.session))
    found = look.metrics(0)
    assert found["margin"] != 0
    again = diagnosis(resolved.spec, one, Folder(), 4, said.append, spent.append)  # type: ignore[arg-type]
    assert torch.equal(look.base, again.base) and again.metrics(4) == found
    assert again.metrics(4) == found and spent == [look.base.numel()] * 2, "asked twice, computed once"
    assert one.session.denoiser._reference is None, "no reference was brought for this"
    (tmp_path / "holdout.json").unlink()
    lost = diagnosis(resolved.spec, one, Folder(), 4, said.append, spent.append)  # type: ignore[arg-type]
    torch.testing.assert_close(lost.base, look.base)
    steps = range(1, resolved.spec.train.steps + 1)
    looks = 1 + sum(look.due(step) for step in steps)
    assert make_plan(resolved).diagnosis_passes == looks * spent[0]
