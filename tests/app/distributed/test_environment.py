"""What launchers say of a process's place."""

import pytest

from smpo.app.distributed.environment import RankInfo, export_environment, first_node, rank_from_environment
from smpo.errors import RunError

TORCHRUN = {
    "RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu007", "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "2",
}  # fmt: skip
SLURM = {
    "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_NTASKS": "16", "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0",
    "SLURM_JOB_NODELIST": "gpu[007-008]",
}  # fmt: skip


def test_torchrun_is_understood():
    assert rank_from_environment(TORCHRUN) == RankInfo(9, 16, 1, "gpu007", 29500, "torchrun", restarts=2)
    assert rank_from_environment({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}).is_main, "elastic, and shrunk to one"


def test_a_step_of_slurm_is_joined_and_its_batch_script_is_not():
    assert rank_from_environment(SLURM) is None, "the script itself is one process, whatever SLURM_NTASKS says"
    place = rank_from_environment({**SLURM, "SLURM_STEP_NUM_TASKS": "16"})
    assert (place.rank, place.world, place.local, place.address) == (9, 16, 1, "gpu007")
    assert 20_000 <= place.port < 40_000
    one_gpu = rank_from_environment({**SLURM, "SLURM_STEP_NUM_TASKS": "16", "CUDA_VISIBLE_DEVICES": "3"})
    assert one_gpu.local == 0, "the only GPU that the task sees is number 0 to it"
    told = rank_from_environment({**SLURM, "SLURM_STEP_NUM_TASKS": "16", "MASTER_ADDR": "a", "MASTER_PORT": "5"})
    assert (told.address, told.port) == ("a", 5)
    assert rank_from_environment({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}) is None


def test_alone_is_alone():
    assert rank_from_environment({}) is None
    assert rank_from_environment({"RANK": "0", "WORLD_SIZE": "1"}) is None


def test_half_an_answer_is_refused():
    with pytest.raises(RunError, match="MASTER_ADDR isn't"):
        rank_from_environment({"RANK": "0", "WORLD_SIZE": "2"})
    with pytest.raises(RunError, match="WORLD_SIZE='two'"):
        rank_from_environment({"RANK": "0", "WORLD_SIZE": "two"})


def test_a_place_is_said_in_the_names_that_torch_reads():
    environment = {}
    export_environment(RankInfo(1, 2, 0, "here", 77, "Slurm"), environment)
    assert environment == {
        "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "here", "MASTER_PORT": "77",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[007-010,12],cpu1", "gpu007"), ("cpu1,cpu2", "cpu1"), ("n3", "n3"), ("a[1,3]-ib", "a1-ib"),
        ("rack2-gpu[1-2]", "rack2-gpu1"),
    ],
)  # fmt: skip
def test_the_first_node_of_a_list(nodes, first):
    assert first_node(nodes) == first
