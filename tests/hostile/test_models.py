"""Models, rewards and pairs that others wrote: damaged at random, they are refused in words, soon, in bounded memory.

Anything but an `SmpoError` fails the test. What still loads must work.
"""

import json
import os
import random
import resource
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import smpo
from smpo.cli.output import resolve_spec
from smpo.errors import MachineError, RunError, SmpoError
from smpo.kinds import Runtime
from tests.hostile.damage import damaged_json, damaged_tensors

WORLDS = Path(smpo.__file__).parent / "worlds"
BASE, REWARD = WORLDS / "shapes/weights/base", WORLDS / "shapes/weights/reward"
PLANE = WORLDS / "plane/weights"
PROMPT = "a red circle on a black background"
fuzzed = settings(
    max_examples=int(os.environ.get("SMPO_FUZZ", "10")),
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def runtime(folder: Path) -> Runtime:
    return Runtime(device="cpu", precision="fp32", cache=folder / "cache", batch=4, reference=False)


def use_base(folder: Path) -> None:
    from smpo.families.loading import load_unet

    load_unet(folder, runtime=runtime(folder))


def use_reward(folder: Path) -> None:
    spec = resolve_spec("quickstart", []).spec
    scorer = spec.reward.model_copy(update={"weights": str(folder)}).load(runtime(folder))
    scorer([Image.new("RGB", (32, 32))], [PROMPT])


def use_plane(folder: Path) -> None:
    spec = resolve_spec("plane_smpo", []).spec
    model = spec.model.model_copy(update={"weights": str(folder / "base.safetensors")})
    model.load(runtime(folder)).sample(["north"], [1], guidance=1.0, steps=2)


def use_pairs(folder: Path) -> None:
    from smpo.worlds.plane.pairs import read_plane_pairs

    table = read_plane_pairs(folder / "pairs.safetensors")
    assert all(0.5 <= table[row].share <= 1 for row in range(len(table)))


USES = {
    "model": (BASE, use_base),
    "reward": (REWARD, use_reward),
    "plane": (PLANE, use_plane),
    "pairs": (PLANE, use_pairs),
}


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """A folder of its own; ten seconds of processor and 4 GB more than now are all that a damaged file may take."""
    monkeypatch.chdir(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (4 << 30), before[1]))
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", USES)
@fuzzed
@given(seed=st.integers(0, 2**32))
def test_damaged_files_are_refused_in_words(name, seed, sandbox):
    source, use = USES[name]
    lot, folder = random.Random(seed), sandbox / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    wanted = {"plane": "base.safetensors", "pairs": "pairs.safetensors"}.get(name, "*")
    file = lot.choice([f for f in sorted(folder.rglob(wanted)) if f.is_file() and f.suffix != ".md"])
    match file.suffix:
        case ".safetensors":
            file.write_bytes(damaged_tensors(file.read_bytes(), lot))
        case ".json":
            file.write_bytes(damaged_json(file.read_bytes(), lot))
        case _:
            file.write_bytes(file.read_bytes()[: lot.randrange(file.stat().st_size)])
    began = time.process_time()
    try:
        use(folder)
    except SmpoError as error:
        assert 10 < len(error.message) < 1000
    assert time.process_time() - began < 10
    assert not (sandbox / "sprung").exists() and {path.name for path in sandbox.iterdir()} <= {
        "copy",
        "cache",
    }


def copied(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder)
    return folder


def edit(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("unet/config.json", {"block_out_channels": [10**9, 10**9]}),
        ("vae/config.json", {"layers_per_block": 10**6}),
        ("text_encoder/config.json", {"num_hidden_layers": 10**8}),
        ("text_encoder/config.json", {"vocab_size": 10**12}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}),
    ],
)
def test_numbers_that_would_fill_any_machine_are_refused_at_once(file, values, sandbox):
    folder = copied(BASE, sandbox / "copy")
    edit(folder / file, **values)
    began = time.process_time()
    with pytest.raises(MachineError, match="which no model has"):
        use_base(folder)
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("unet", "utils"),
        ("unet", "DiffusionPipeline"),
        ("tokenizer", "AutoTokenizer"),
        ("text_encoder", "AutoModel"),
        ("scheduler", "__class__"),
        ("vae", "__builtins__"),
    ],
)
def test_a_model_index_chooses_no_code(part, name, sandbox):
    folder = copied(BASE, sandbox / "copy")
    edit(folder / "model_index.json", **{part: ["diffusers", name]})
    with pytest.raises(RunError, match=f"makes {name} of its {part}"):
        use_base(folder)


def test_code_beside_weights_is_never_run(sandbox):
    """`auto_map` is how a repository of the hub asks for its own Python to be imported."""
    folder = copied(BASE, sandbox / "copy")
    for part in ("text_encoder", "tokenizer", "unet", "vae"):
        (folder / part / "evil.py").write_text("from pathlib import Path\nPath('sprung').touch()\nclass Evil: ...\n")
        for config in (folder / part).glob("*config.json"):
            edit(config, auto_map={"AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    use_base(folder)
    assert not (sandbox / "sprung").exists()


@pytest.mark.parametrize("ending", [".bin", ".pt", ".pth", ".ckpt", ".pkl"])
def test_a_pickle_is_never_opened(ending, sandbox):
    """With a payload that would run if it were."""

    class Payload:
        def __reduce__(self):
            return (open, ("sprung", "w"))

    import pickle

    folder = copied(REWARD, sandbox / "copy")
    (folder / "model.safetensors").unlink()
    for name in ("pytorch_model", "model"):
        (folder / f"{name}{ending}").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(SmpoError):
        use_reward(folder)
    assert not (sandbox / "sprung").exists()


@pytest.mark.parametrize(("source", "file"), [(BASE, "unet"), (BASE, "vae"), (BASE, "text_encoder"), (REWARD, "")])
def test_a_weight_that_is_missing_is_not_made_up(source, file, sandbox):
    """Libraries fill it with random numbers and go on: the reward of a torn file would give scores."""
    from safetensors.torch import load_file, save_file

    folder = copied(source, sandbox / "copy")
    (weights,) = (folder / file).glob("*.safetensors")
    tensors = load_file(weights)
    tensors.pop(gone := sorted(tensors)[-1])
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(MachineError, match=f"is not whole: {gone}"):
        (use_base if source is BASE else use_reward)(folder)
