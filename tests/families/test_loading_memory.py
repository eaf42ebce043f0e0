"""Loading takes the host memory of the weights that are kept, and of one tensor more."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.families.conftest import make_sd

LOAD = """
import json, sys, threading
import diffusers, peft, transformers  # what is imported on the way isn't counted
from smpo.families.loading import load_unet
from smpo.families.lora import Adapter
from smpo.kinds import Runtime

def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

def watch():
    while not over.wait(0.002):
        private.append(memory("RssAnon"))

small, large, precision, trained, device = sys.argv[1:]
load_unet(small, runtime=Runtime(device=device))  # threads, caches of code
adapter = Adapter(rank=2) if trained == "LoRA" else None
resident, private, over = memory("VmRSS"), [memory("RssAnon")], threading.Event()
thread = threading.Thread(target=watch)
thread.start()
one = load_unet(large, runtime=Runtime(device=device, precision=precision), adapter=adapter)
over.set()
thread.join()
highest = memory("VmHWM")  # ru_maxrss would begin at that of the process that started this one
largest = max(p.nbytes for p in one.network.parameters())
print(json.dumps({"resident": highest - resident, "private": max(private) - private[0], "largest": largest}))
"""
"""Loads a large pipeline after a small one: arguments are both folders, precision, `whole` or `LoRA`, and the device.
Prints bytes over what was there before: the highest in all, with pages of mapped files, and what is private."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("loading")
    return make_sd(place / "small"), make_sd(place / "large", channels=(256, 512), groups=8)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells what is resident")
@pytest.mark.parametrize(
    ("precision", "trained", "each"),
    [("fp32", "whole", 4 + 4), ("bf16", "whole", 4 + 2), ("bf16", "LoRA", 4 + 2)],
)
def test_a_network_is_held_once_in_each_precision_that_it_has(folders, precision, trained, each) -> None:
    """Bytes for each stored weight of 4: the mapped file, which processes share and of which the policy's weights are
    views, and the reference's own; of a LoRA the 16-bit weights. The old way held 4 more while it made 2 of them."""
    small, large = folders
    words = [sys.executable, "-c", LOAD, str(small), str(large), precision, trained, "cpu"]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout.splitlines()[-1])
    resident, largest = found["resident"], found["largest"]
    file = (large / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    needed = file * each / 4
    rest = sum(part.stat().st_size for part in large.glob("*/*.safetensors")) - file
    assert needed < 1.02 * (resident + rest), "weights that nobody holds"
    assert resident < needed + 2 * rest + 2 * largest + 0.1 * file
