"""Policy and reference of the published sizes run the same operators on a GPU, on tensors of the same layouts.

A pretended GPU computes nothing, but torch chooses operators, kernels of attention and layouts as on a real one.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from smpo.families.lora import ATTENTION, Adapter
from tests.families.operators import SETTINGS, SMALL, denoiser, inputs, traces
from tests.families.published import SD15, SD21, SDXL

pretended = pytest.importorskip("pretended", reason="`nox -s pretended_gpu`")
pytestmark = pytest.mark.pretended

ARCHS = {"sd15": SD15, "sd21": SD21, "sdxl": SDXL}
LORA = Adapter(rank=8, targets=(*ATTENTION, "proj_in", "proj_out"))


@pytest.fixture(autouse=True)
def _empty():
    yield
    torch.cuda.empty_cache()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("arch", ARCHS)
def test_a_network_that_is_trained_whole(arch: str, precision: str, record_property: Any) -> None:
    found = traces(denoiser(ARCHS[arch], "cuda", precision))
    record_property("operators", len(found["policy"]))
    assert found["policy"] == found["reference"] == found["without gradients"]
    assert len(found["policy"]) > 800


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("arch", ["sd15", "sdxl"])
def test_an_adapter_adds_its_own_operators_and_changes_no_other(arch: str, precision: str) -> None:
    from smpo.engine.monitoring.operators import first_difference

    for adapter in (Adapter(rank=8), LORA, Adapter(rank=8, targets=("ff.net.2",))):
        found = traces(denoiser(ARCHS[arch], "cuda", precision, adapter=adapter))
        assert first_difference(found["policy"], found["reference"]) is None
        assert len(found["policy"]) > len(found["reference"]) > 800


@pytest.mark.parametrize("setting", [name for name in SETTINGS if name not in ("as it comes", "offload_reference")])
@pytest.mark.parametrize(("arch", "precision"), [("sdxl", "bf16"), ("sd15", "fp16")])
def test_with_each_setting(arch: str, precision: str, setting: str) -> None:
    found = traces(denoiser(ARCHS[arch], "cuda", precision, **SETTINGS[setting]))
    assert found["policy"] == found["reference"] == found["without gradients"]


def test_with_the_reference_in_the_memory_of_the_host() -> None:
    found = traces(denoiser(SMALL["sdxl"], "cuda", "bf16", offload=True))
    assert found["policy"] == found["reference"]


def test_a_linear_projection_that_reads_a_strided_input_would_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    from smpo.engine.monitoring.operators import first_difference
    from smpo.families import speed

    monkeypatch.setattr(speed, "contiguous_projections", lambda network: None)
    found = traces(denoiser(SDXL, "cuda", "bf16"))
    difference = first_difference(found["policy"], found["reference"])
    assert difference is not None and difference[1].startswith("bmm(")


@pytest.mark.parametrize("adapter", [None, Adapter(rank=8)], ids=["whole", "lora"])
def test_a_pass_that_is_compared_takes_the_memory_of_one_without_gradients(adapter: Adapter | None) -> None:
    one = denoiser(SDXL, "cuda", "bf16", adapter=adapter)
    x, t, about = inputs(one)
    peaks = {}
    for inverting in (True, False, True, False):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        one.predict(x, t, about, reference=True, inverting=inverting)
        peaks[inverting] = torch.cuda.max_memory_allocated() - before
    assert peaks[False] <= 1.01 * peaks[True]
