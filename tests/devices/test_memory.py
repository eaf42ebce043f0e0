"""`smpo plan` says what each of several processes holds: sharded, and with everything on each."""

import itertools
import json

import pytest

from smpo.app.plan.gpu_memory import memory_of
from smpo.app.plan.workload import ARCHITECTURES
from tests.app.plan.test_gpu_time import work
from tests.devices.launching import TORCHRUN, ran

CASES = [
    {"how": how, "average": average, "adapter": adapter}
    for how, average, adapter in itertools.product(("ddp", "fsdp"), (False, True), (False, True))
]


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """What one of two processes holds, by case."""
    words = [
        *TORCHRUN,
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "tests.devices.holding",
        json.dumps(CASES),
    ]
    said = ran(*words, folder=tmp_path_factory.mktemp("held"))
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(value) for value in case.values()))
def test_the_estimate_is_what_two_processes_hold(held, case):
    found = held[json.dumps(case)]
    network = ARCHITECTURES[0]
    expected = memory_of(
        network,
        work(
            precision="fp32", reference=False, average=case["average"], processes=2, sharded=case["how"] == "fsdp",
            trainable=found["trained"] if case["adapter"] else None,
        ),
    ).parts  # fmt: skip
    weights = expected["weights"] / network.parameters
    beside = expected["training"] / (found["trained"] if case["adapter"] else network.parameters)
    # An adapter is counted beside the network; here it is a part of it.
    plain = found["parameters"] - (found["trained"] if case["adapter"] else 0)
    assert found["bytes"] / 1e9 == pytest.approx(weights * plain + beside * found["trained"], rel=0.01)
