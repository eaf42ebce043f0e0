"""Pairs of mixed shapes through the real assembly, on a small SDXL: what it is told of sizes, and equal
gradients however micro-batches are cut."""

from pathlib import Path

import pytest
import torch

from smpo.app.build.build import build_run
from smpo.app.build.live import LiveRun
from smpo.app.plan.plan import make_plan
from smpo.engine.loop import fit
from smpo.errors import RunError
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved, resolve
from smpo.spec.problems import SpecProblems
from tests.data.worlds import jpeg, vote, write
from tests.double import ADAMW, LOGGED, WEIGHTS, in_double
from tests.families.conftest import make_sdxl

import smpo.components  # noqa: F401, isort: skip -- fills the common registry

SHAPES = ((48, 32), (32, 48), (32, 32), (80, 40), (42, 32))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("buckets")
    make_sdxl(folder / "sdxl")
    rows = [
        vote(
            f"prompt {i % 5}",
            jpeg(2 * i, *SHAPES[i % 5]),
            jpeg(2 * i + 1, *SHAPES[(i + (i % 3 == 0)) % 5]),
            i % 2,
        )
        for i in range(15)
    ]
    write(folder / "pairs.parquet", rows)
    return folder


def resolved(place: Path, *sets: str) -> Resolved[ExperimentSpec]:
    (place / "spec.yaml").write_text(f"""\
name: buckets
model: {{use: stable-diffusion, weights: {place / "sdxl"}}}
data: {{use: pickapic, path: {place / "pairs.parquet"}, buckets: {{step: 8}}}}
objective: {{use: smpo, beta: 100}}
smoothing: hard
inversion: {{use: ddim, steps: 3, by: reference}}
train: {{steps: 2, batch: 6, lr: 1.0e-3, flip: true, holdout: 2}}
runtime: {{device: cpu, micro_batch: 2, runs: {place / "runs"}, cache: {place / "cache"}, tracking: none}}
""")
    return resolve(place / "spec.yaml", skeleton=ExperimentSpec, sets=sets)


def live(place: Path, *sets: str) -> LiveRun:
    return build_run(resolved(place, *sets).spec, report=None, progress=lambda *_: None, say=pytest.fail)


def trained(place: Path, *sets: str) -> tuple[list[float], torch.Tensor]:
    session = live(place, *sets).session
    losses = [report.metrics["loss"] for report in fit(session)]
    return losses, torch.cat([p.detach().flatten() for p in session.parameters])


def test_a_small_sdxl_trains_on_mixed_shapes(place: Path) -> None:
    one = live(place)
    batches = [batch for step in range(2) for batch in one.session.batches(step)]
    shapes = {tuple(batch.mean.shape[2:]) for batch in batches}
    assert len(shapes) > 1
    for batch in batches:
        told = batch.conditioning.tensors["size_ids"]
        assert len({tuple(row) for row in told[:, 4:].tolist()}) == 1, "the target is the bucket, for both images"
        height, width = told[0, 4:].tolist()
        assert (height / 2, width / 2) == tuple(batch.mean.shape[2:])
        assert {tuple(row) for row in told[:, [1, 0]].int().tolist()} <= set(SHAPES), "the real sizes"
    losses, weights = trained(place)
    assert weights.isfinite().all() and losses[1] != losses[0]


@pytest.mark.parametrize("sets", [["runtime.micro_batch=1"], ["runtime.micro_batch=6"], ["runtime.window=2"]])
def test_accumulation_is_right_however_micro_batches_are_cut(
    place: Path, sets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_double(monkeypatch)
    start = torch.cat([p.detach().flatten() for p in live(place).session.parameters])
    losses, weights = trained(place, ADAMW)
    others, other = trained(place, ADAMW, *sets)
    assert others == pytest.approx(losses, **LOGGED)
    assert (weights - start).abs().max() > 1e-4, "it trains"
    assert (weights - other).abs().max() < WEIGHTS


def test_a_plan_counts_what_a_run_has_found(place: Path) -> None:
    live(place)
    plan = make_plan(resolved(place))
    assert plan.caches.buckets == [(40, 24), (32, 32), (24, 40)]
    assert sum(plan.caches.filled.values()) == 15 and len(plan.caches.filled) == 3
    assert plan.portions is not None and 3 <= plan.portions <= 6
    assert plan.caches.images is not None and 0 < plan.caches.images_stored <= plan.caches.images
    assert make_plan(resolved(place, "data.buckets=null")).portions is None


def test_sizes_that_the_model_cannot_halve_end_in_a_sentence(place: Path) -> None:
    from smpo.families.loading import load_unet
    from smpo.kinds import Placement, Runtime

    denoiser = load_unet(str(place / "sdxl"), runtime=Runtime(cache=place / "cache"))
    with pytest.raises(RunError, match="30 x 34 don't suit this model: multiples of 4 do"):
        denoiser.encode_pictures([], [Placement(size=(34, 30))])


def test_single_images_have_no_buckets(place: Path) -> None:
    with pytest.raises(SpecProblems, match="chosen for pairs"):
        resolved(place, "objective={use: kto}", "inversion={use: none, shared: false}")


def test_buckets_leave_identities_alone(place: Path) -> None:
    without = resolved(place, "data.buckets=null").identity.spec_hash
    assert without != resolved(place).identity.spec_hash
    text = (place / "spec.yaml").read_text().replace(", buckets: {step: 8}", "")
    (place / "plain.yaml").write_text(text)
    assert resolve(place / "plain.yaml", skeleton=ExperimentSpec).identity.spec_hash == without


def test_encodings_are_stored_in_the_bits_that_networks_compute_in(place: Path) -> None:
    for precision, bits in (("fp32", "fp32"), ("bf16", "fp16")):
        one = live(place, f"train.precision={precision}", f"runtime.cache={place / precision}")
        batch = next(iter(one.session.batches(0)))
        assert batch.mean.dtype == batch.conditioning.tensors["text"].dtype == torch.float32, "cast once"
        assert {folder.name[-4:] for folder in (place / precision).glob("*/*-fp*")} == {bits}
        plan = make_plan(resolved(place, f"train.precision={precision}", f"runtime.cache={place / precision}"))
        assert plan.caches.images_stored > 0
