"""Scorers in other processes: the protocol, what goes wrong, and who decides what is run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from smpo.components.rewards import Process
from smpo.errors import MachineError, RunError
from smpo.kinds import Runtime
from smpo.rewards.process import load_process_scorer, own_gpu
from smpo.rewards.scorer_programs import WORKERS, find_worker
from tests.cuda import pretend_card

WORKER = """
    import hashlib, io, os, sys, time
    from smpo_worker import serve
    def load(device, precision, settings):
        if settings.get("broken"):
            raise ValueError("no such weights")
        print("chatter on stdout")
        def score(pictures, prompts):
            if "sleep" in prompts:
                time.sleep(60)
            if "die" in prompts:
                flag = settings["flag"]
                if not os.path.exists(flag):
                    open(flag, "w").close()
                    sys.stderr.write("out of memory, sorry\\n")
                    os._exit(3)
            if "refuse" in prompts:
                raise ValueError("I don't like this prompt")
            if "short" in prompts:
                return [1.0]
            from_bytes = [int(hashlib.sha256(one).hexdigest()[:6], 16) for one in pictures]
            return [a + len(b) for a, b in zip(from_bytes, prompts)]
        return "weights-" + str(settings.get("weights", 1)), score
    serve(load)
"""
RED, BLUE = Image.new("RGB", (5, 4), "red"), Image.new("RGB", (5, 4), "blue")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that knows one scorer, `toy`."""
    script = tmp_path / "toy.py"
    script.write_text(textwrap.dedent(WORKER))
    path = tmp_path / "scorers.toml"
    path.write_text(f'[toy]\ncommand = ["{sys.executable}", "{script}"]\ntimeout = 20\nrestarts = 1\n')
    monkeypatch.setenv("SMPO_SCORERS", str(path))
    monkeypatch.setenv("PYTHONHOME", "/nonsense")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    return path


def test_scores_come_back_in_order_and_by_content(machine: Path) -> None:
    scorer = load_process_scorer("toy", {}, Runtime(batch=2))
    pictures, prompts = [RED, BLUE, RED.convert("RGBA")], ["a", "bb", "ccc"]
    found = scorer(pictures, prompts)
    assert found.dtype == torch.float32 and found.shape == (3,)
    assert found[2] - found[0] == 2 and found[1] != found[0]
    assert torch.equal(found, scorer(pictures, prompts))
    assert torch.equal(found[1:2], scorer([BLUE], ["bb"]))
    assert scorer([], []).shape == (0,)
    with pytest.raises(ValueError, match="1 pictures for 2 prompts"):
        scorer(pictures[:1], prompts[:2])
    scorer.close()


def test_the_key_is_the_workers_and_the_settings(machine: Path) -> None:
    keys = []
    for settings in ({}, {}, {"weights": 2}, {"other": 1}):
        scorer = load_process_scorer("toy", settings, Runtime())
        keys.append(scorer.key)
        scorer.close()
    assert keys[0] == keys[1] and len({*keys}) == 3
    assert keys[0].startswith("process/toy/")


def test_a_worker_that_dies_is_started_again(machine: Path, tmp_path: Path) -> None:
    scorer = load_process_scorer("toy", {"flag": str(tmp_path / "flag")}, Runtime())
    assert scorer([RED], ["die"]).shape == (1,)  # dies once, and is asked again
    scorer.close()
    assert scorer([RED], ["a"]).shape == (1,)  # and after being let go


def test_a_silent_worker_is_given_up_on(machine: Path) -> None:
    machine.write_text(
        machine.read_text().replace("timeout = 20", "timeout = 2").replace("restarts = 1", "restarts = 0")
    )
    scorer = load_process_scorer("toy", {}, Runtime())
    process = scorer._line._process
    start = time.monotonic()
    with pytest.raises(RunError, match=r"asked once: no answer for 2 s"):
        scorer([RED], ["sleep"])
    assert time.monotonic() - start < 20
    assert process.poll() is not None


def test_errors_and_nonsense_are_reported_in_words(machine: Path) -> None:
    scorer = load_process_scorer("toy", {}, Runtime())
    with pytest.raises(RunError, match="the scorer `toy` says: ValueError: I don't like this prompt"):
        scorer([RED], ["refuse"])
    assert scorer([RED], ["a"]).shape == (1,)  # it is still there
    with pytest.raises(RunError, match="asked for 2 scores and answered"):
        scorer([RED, RED], ["short", "short"])
    with pytest.raises(MachineError, match="could not load: ValueError: no such weights"):
        load_process_scorer("toy", {"broken": True}, Runtime())


def test_last_words_are_passed_on(machine: Path, tmp_path: Path) -> None:
    script = tmp_path / "bad.py"
    script.write_text("import sys; sys.exit('no module named torch here')")
    machine.write_text(f'[toy]\ncommand = ["{sys.executable}", "{script}"]\nrestarts = 1\n')
    with pytest.raises(
        RunError, match=r"asked 2 times: it ended with exit code 1; its last words: no module named torch"
    ):
        load_process_scorer("toy", {}, Runtime())
    machine.write_text('[toy]\ncommand = ["/no/such/program"]\n')
    with pytest.raises(MachineError, match="can't be started: /no/such/program"):
        load_process_scorer("toy", {}, Runtime())


def test_forgotten_workers_end(machine: Path) -> None:
    scorer = load_process_scorer("toy", {}, Runtime())
    process = scorer._line._process
    del scorer
    assert process.poll() is not None


def test_only_the_machines_own_file_says_what_is_run(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Process(scorer="toy").check() is None
    with pytest.raises(ValueError):
        Process(scorer="../toy")
    with pytest.raises(ValueError):
        Process.model_validate({"scorer": "toy", "command": ["true"]})
    machine.chmod(0o666)
    with pytest.raises(MachineError, match="everybody on this machine may write"):
        find_worker("toy")
    machine.chmod(0o600)
    monkeypatch.delenv("SMPO_SCORERS")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)  # a file beside the spec means nothing
    reason = Process(scorer="toy").check()
    assert reason is not None and "no scorer is called `toy`" in reason and "smpo/scorers.toml" in reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[toy]\ncommand = 'python x.py'\n", "should be a list of words"),
        ("[toy]\npython = '/usr/bin/python'\n", "ships no worker of that name"),
        ("[toy]\nshell = 'x'\n", "`shell`, which means nothing"),
        ("[toy]\ncommand = ['x']\ntimeout = -1\n", "number of seconds"),
        ("[toy", "is not TOML"),
    ],
)
def test_mistakes_in_it_are_named(machine: Path, text: str, message: str) -> None:
    machine.write_text(text)
    with pytest.raises(MachineError, match=message):
        find_worker("toy")


def test_shipped_workers_need_only_a_python(machine: Path) -> None:
    machine.write_text('[hpsv3]\npython = "~/v/bin/python"\n')
    worker = find_worker("hpsv3")
    assert worker.command == (str(Path("~/v/bin/python").expanduser()), str(WORKERS / "hpsv3_worker.py"))
    machine.write_text('[smpo]\npython = "x"\n')
    with pytest.raises(MachineError, match="ships no worker"):
        find_worker("smpo")


def test_hpsv3_asks_its_package_by_name_and_one_by_one(machine: Path, tmp_path: Path) -> None:
    """The shipped worker against a package of the same face; the order of arguments has changed between releases."""
    package = tmp_path / "fake"
    (package / "hpsv3").mkdir(parents=True)
    (package / "hpsv3" / "__init__.py").write_text(
        textwrap.dedent("""
        class HPSv3RewardInferencer:
            def __init__(self, config_path=None, checkpoint_path=None, device="cuda"):
                assert config_path is None and device == "cpu"
            def reward(self, prompts, image_paths):
                assert len(prompts) == len(image_paths) == 1 and image_paths[0].mode == "RGB"
                return [[len(prompts[0]) + image_paths[0].width, 99.0]]
        """)
    )
    for name in ("torch", "huggingface_hub"):  # importing the real ones would take longer than all the rest
        (package / f"{name}.py").write_text(
            "import contextlib\nno_grad = contextlib.nullcontext\nhf_hub_download = None\n"
        )
    weights = tmp_path / "HPSv3.safetensors"
    weights.write_bytes(b"weights")
    machine.write_text(
        f'[hpsv3]\npython = "{sys.executable}"\n[hpsv3.environment]\nPYTHONPATH = "{package}{os.pathsep}{WORKERS}"\n'
    )
    scorer = load_process_scorer("hpsv3", {"checkpoint": str(weights)}, Runtime())
    assert scorer([RED, BLUE], ["abc", "a"]).tolist() == [8.0, 6.0]
    assert scorer._said == f"hpsv3/1/{hashlib.sha256(b'weights').hexdigest()}"


def test_the_worker_runs_without_smpo() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import smpo_worker; print([*{'smpo'} & {*sys.modules}])"
    found = subprocess.run([sys.executable, "-I", "-c", code, str(WORKERS)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("seen", "current", "shown"),
    [(None, 0, "0"), (None, 3, "3"), ("4,5", 1, "5"), ("GPU-8f, GPU-2c", 0, "GPU-8f"), ("", 2, "2")],
)
def test_a_worker_sees_its_process_gpu_alone(seen: str | None, current: int, shown: str) -> None:
    environment = {} if seen is None else {"CUDA_VISIBLE_DEVICES": seen}
    assert own_gpu(environment, current) == {"CUDA_VISIBLE_DEVICES": shown}


def test_a_worker_does_not_take_itself_for_a_process_of_the_run(
    machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = dict.fromkeys(("RANK", "LOCAL_RANK", "WORLD_SIZE", "GROUP_RANK", "TORCHELASTIC_RUN_ID"), "1")
    for name, value in {**told, "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    script = tmp_path / "toy.py"
    script.write_text(
        textwrap.dedent("""
            import os
            from smpo_worker import serve
            named = ("RANK", "WORLD_SIZE", "MASTER_", "TORCHELASTIC")
            found = [name for name in os.environ if any(part in name for part in named)]
            serve(lambda device, precision, settings: ("key", lambda pictures, prompts: [float(len(found))]))
        """)
    )
    assert load_process_scorer("toy", {}, Runtime())([RED], ["a"]).tolist() == [0.0]


def test_a_worker_of_a_gpu_run_sees_the_gpu_of_its_process(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_card(monkeypatch, current_device=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    (tmp_path / "toy.py").write_text(
        textwrap.dedent("""
            import os
            from smpo_worker import serve
            seen = float(os.environ["CUDA_VISIBLE_DEVICES"])
            serve(lambda device, precision, settings: (device, lambda pictures, prompts: [seen]))
        """)
    )
    assert load_process_scorer("toy", {}, Runtime(device="cuda"))([RED], ["a"]).tolist() == [5.0]
