"""What words stand for: runs, what they saved, folders, single files, hub names."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from smpo.app.evaluate.models import LORA, ModelRef, find_models, model_ref, sampling_of
from smpo.errors import RunError
from smpo.runs.store import RunFolder
from tests.cli.words import SMALL_PLANE

ADAPTER = {"unet.down.0.attn.to_q.lora_A.weight": np.zeros((2, 4), np.float32)}
KOHYA = {"lora_unet_down_0_attn_to_q.lora_down.weight": np.zeros((2, 4), np.float32)}


@pytest.fixture
def run(tmp_path):
    """A finished run's folder, as far as it matters here."""
    folder = tmp_path / "runs" / "mine" / "0123456789ab-1"
    (folder / "model").mkdir(parents=True)
    (folder / "status.json").write_text('{"state": "done"}')
    (folder / "resolved.yaml").write_text(SMALL_PLANE)
    return RunFolder(folder)


def found(word, tmp_path) -> ModelRef:
    (one,) = find_models([str(word)], tmp_path / "runs")
    return one


def test_a_run_is_itself_by_any_of_its_names(run, tmp_path):
    for word in (run.path, run.model, "mine", "0123456789ab", "0123456789ab-1"):
        one = found(word, tmp_path)
        assert one.run is not None and one.run.path.name == run.path.name and one.weights == str(run.model)
    save_file(ADAPTER, run.model / LORA)
    assert found("mine", tmp_path).lora == run.model / LORA


@pytest.mark.parametrize("tensors", [ADAPTER, KOHYA], ids=["diffusers", "kohya"])
def test_a_file_of_an_adapter_is_no_model(tensors, tmp_path):
    save_file(tensors, tmp_path / "style.safetensors")
    one = found(tmp_path / "style.safetensors", tmp_path)
    assert (one.name, one.lora, one.weights) == ("style", tmp_path / "style.safetensors", None)
    (tmp_path / "folder").mkdir()
    save_file(tensors, tmp_path / "folder" / LORA)
    assert found(f"it={tmp_path / 'folder'}", tmp_path).name == "it"


def test_other_files_are_weights_and_other_words_are_names_on_the_hub(tmp_path):
    save_file({"model.diffusion_model.x": np.zeros(1, np.float32)}, tmp_path / "whole.safetensors")
    assert found(tmp_path / "whole.safetensors", tmp_path).weights == str(tmp_path / "whole.safetensors")
    assert found("owner/name", tmp_path).weights == "owner/name"
    with pytest.raises(RunError, match="neither a run nor a model"):
        found("nobody", tmp_path)


def test_equal_names_are_numbered(tmp_path, run):
    names = [one.name for one in find_models(["a=mine", "a=mine", "base=mine"], tmp_path / "runs")]
    assert names == ["a", "a (2)", "base (3)"]


def test_who_was_taught_with_prefixes_is_asked_with_one(run):
    assert sampling_of(model_ref(run)).prefixes is None and sampling_of(model_ref(None)).prefixes is None
    run.resolved.write_text(SMALL_PLANE.replace("{use: smpo, beta: 500}", "csft"))
    assert sampling_of(model_ref(run)).prefixes == ("good image, ", "bad image, ")
    run.resolved.write_text("name: [")
    assert sampling_of(model_ref(run)).prefixes is None
