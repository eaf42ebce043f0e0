"""GenEval's worker against a script with the names and the order of things of the published one."""

import json
import sys
import textwrap

import pytest
import torch
from PIL import Image

from smpo.errors import MachineError, RunError
from smpo.kinds import Runtime
from smpo.rewards.process import load_process_scorer

# As in the published file: everything it needs is a global that `__main__` would have set.
SCRIPT = """
    from PIL import Image
    def load_models(args):
        assert args.model_config and args.model_path
        return "detector", ("clip", "transform", "tokenizer"), ["cat"]
    def evaluate_image(filepath, metadata):
        assert (object_detector, clip_model, classnames) == ("detector", "clip", ["cat"])
        assert (COUNTING_THRESHOLD, MAX_OBJECTS, NMS_THRESHOLD, POSITION_THRESHOLD) == (0.9, 16, 1.0, 0.1)
        wanted = (255, 0, 0) if metadata["include"][0]["class"] == "cat" else (0, 0, 255)
        found = Image.open(filepath).getpixel((0, 0)) == wanted and THRESHOLD < 0.5
        return {"correct": found, "tag": metadata["tag"], "reason": ""}
"""
METADATA = [
    {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a photo of a cat"},
    {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a photo of a dog"},
]
RED, BLUE = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A machine with a clone of GenEval."""
    for folder in ("evaluation", "prompts", "detector"):
        (tmp_path / folder).mkdir()
    (tmp_path / "evaluation" / "evaluate_images.py").write_text(textwrap.dedent(SCRIPT))
    (tmp_path / "prompts" / "evaluation_metadata.jsonl").write_text("\n".join(map(json.dumps, METADATA)) + "\n")
    (tmp_path / "detector" / "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.pth").write_bytes(b"weights")
    told = {
        "GENEVAL": tmp_path,
        "GENEVAL_DETECTOR": tmp_path / "detector",
        "GENEVAL_CONFIG": tmp_path / "c.py",
    }
    table = ", ".join(f'{name} = "{value}"' for name, value in told.items())
    (tmp_path / "scorers.toml").write_text(
        f'[geneval]\npython = "{sys.executable}"\nrestarts = 0\nenvironment = {{{table}}}\n'
    )
    monkeypatch.setenv("SMPO_SCORERS", str(tmp_path / "scorers.toml"))
    return tmp_path


def test_a_picture_is_right_or_wrong(clone):
    scorer = load_process_scorer("geneval", {}, Runtime())
    prompts = ["a photo of a cat", "a photo of a cat", "a photo of a dog"]
    assert torch.equal(scorer([RED, BLUE, BLUE], prompts), torch.tensor([1.0, 0.0, 1.0]))
    with pytest.raises(RunError, match=r"'a horse' is none of GenEval's prompts"):
        scorer([RED], ["a horse"])
    scorer.close()


def test_settings_reach_the_script_and_the_key(clone):
    keys = []
    for settings in ({}, {"threshold": 0.7}):
        scorer = load_process_scorer("geneval", settings, Runtime())
        keys.append(scorer.key)
        score = float(scorer([RED], ["a photo of a cat"])[0])
        assert score == (0.0 if settings else 1.0)
        scorer.close()
    assert len(set(keys)) == 2


def test_what_is_missing_is_said(clone):
    (clone / "evaluation" / "evaluate_images.py").write_text("assert False")
    with pytest.raises(MachineError, match="needs a CUDA device"):
        load_process_scorer("geneval", {}, Runtime())
    (clone / "evaluation" / "evaluate_images.py").unlink()
    with pytest.raises(MachineError, match=r"clone of github\.com/djghosh13/geneval"):
        load_process_scorer("geneval", {}, Runtime())
    (clone / "scorers.toml").write_text(f'[geneval]\npython = "{sys.executable}"\n')
    with pytest.raises(MachineError, match=r"GENEVAL isn't set.*environment"):
        load_process_scorer("geneval", {}, Runtime())
    (clone / "scorers.toml").write_text("")
    with pytest.raises(MachineError, match="no scorer is called `geneval`"):
        load_process_scorer("geneval", {}, Runtime())
