"""Which checkpoints stay, what a full disk costs, and what is written behind the back of training."""

import errno
import os
import threading
from contextlib import contextmanager

import pytest
import torch

from smpo.engine.checkpoints.checkpoint import CheckpointWriter, restore
from smpo.engine.checkpoints.files import best_of, checkpoints, manifest_fault, step_of
from smpo.errors import RunError
from tests.engine.states import live, weight, write


def keeper(folder, said, keep=2) -> CheckpointWriter:
    return CheckpointWriter(folder, keep=keep, spec_hash="abc", say=said.append)


@contextmanager
def full_disk():
    """Room for nothing: the kernel's own refusal of files beyond a size. Only around the call, since it is true of the
    tests' own output too."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tmp_path):
    said: list[str] = []
    store = keeper(tmp_path, said)
    store.save(1, live(1.0))
    with full_disk():
        store.save(2, live(2.0))
    (sentence,) = said
    assert "after update 2 could not be written (File too large); step-00000001 is whole" in sentence
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"], "no litter"
    assert restore(tmp_path, live(0.0), say=pytest.fail).step == 1


def test_the_last_checkpoint_must_be_written(tmp_path):
    store = keeper(tmp_path, [])
    store.save(1, live(1.0))
    refused = pytest.raises(RunError, match=r"after update 2 .* File too large; step-00000001 is whole")
    with refused as caught, full_disk():
        store.save(2, live(2.0), must=True)
    assert "--resume" in str(caught.value.help)
    assert manifest_fault(tmp_path / "step-00000001") is None


def test_older_checkpoints_make_room_for_a_new_one_but_never_the_last(tmp_path, monkeypatch):
    import smpo.engine.checkpoints.checkpoint as module

    said: list[str] = []
    store = keeper(tmp_path, said)
    for step in (1, 2):
        store.save(step, live(float(step)))
    save_file = module.save_file

    def cramped(tensors, path):
        if len(checkpoints(tmp_path)) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save_file(tensors, path)

    monkeypatch.setattr(module, "save_file", cramped)
    store.save(3, live(3.0))
    assert said == ["step-00000001 was deleted to make room for the checkpoint after update 3"]
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]

    monkeypatch.setattr(module, "save_file", lambda tensors, path: (_ for _ in ()).throw(OSError(28, "full")))
    store.save(4, live(4.0))
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003"]
    assert "step-00000003 is whole" in said[-1]


def test_the_best_is_kept_beside_the_newest(tmp_path):
    store = keeper(tmp_path, [], keep=1)
    scores = {1: 0.5, 2: 0.8, 3: None, 4: 0.8, 5: 0.7, 6: 0.9, 7: None}
    kept = {}
    for step, score in scores.items():
        assert score is None or store.is_better(step, score) == (score > max([scores[s] or 0 for s in kept], default=0))
        store.save(step, live(float(step)), {} if score is None else {"score": score})
        kept[step] = [step_of(path) for path in checkpoints(tmp_path)]
    assert kept == {1: [1], 2: [2], 3: [2, 3], 4: [2, 4], 5: [2, 5], 6: [6], 7: [6, 7]}
    best = best_of(tmp_path)
    assert best is not None and (best[0].name, best[1]) == ("step-00000006", 0.9)


def test_a_torn_newest_is_not_counted_among_those_that_are_kept(tmp_path):
    store = keeper(tmp_path, [], keep=1)
    store.save(4, live(4.0))
    store.save(6, live(6.0), {"score": 9.0})
    write(tmp_path, 4)
    (tmp_path / "step-00000006/weights.safetensors").write_bytes(b"torn")
    assert restore(tmp_path, live(0.0), say=lambda text: None).step == 4
    assert store.is_better(5, 0.1), "what is torn is not the best either"
    store.save(5, live(5.0))
    assert restore(tmp_path, live(0.0), say=lambda text: None).step == 5
    store.save(6, live(6.0))
    assert [step_of(path) for path in checkpoints(tmp_path)] == [6] and manifest_fault(checkpoints(tmp_path)[0]) is None


def background(folder, said) -> CheckpointWriter:
    return CheckpointWriter(folder, keep=9, spec_hash="abc", say=said.append, background=True)


def test_what_is_written_in_the_background_is_the_moment_it_was_asked_for(tmp_path, monkeypatch):
    import smpo.engine.checkpoints.checkpoint as module

    gate, save_file = threading.Event(), module.save_file
    monkeypatch.setattr(module, "save_file", lambda *words: gate.wait(30) and save_file(*words))
    state = live(1.0)
    before = weight(state).detach().clone(), state.average.shadow["weight"].clone()
    moments = state.optimiser.state_dict()["state"][0]["exp_avg"].clone()
    with background(tmp_path, []) as store:
        store.save(1, state)
        weight(state).data.add_(1)  # training goes on while the disk is slow
        state.average.shadow["weight"].add_(1)
        state.optimiser.state[weight(state)]["exp_avg"].add_(1)
        assert not checkpoints(tmp_path)
        gate.set()
    other = live(0.0)
    assert restore(tmp_path, other, say=pytest.fail).step == 1
    assert torch.equal(weight(other), before[0]) and torch.equal(other.average.shadow["weight"], before[1])
    assert torch.equal(other.optimiser.state_dict()["state"][0]["exp_avg"], moments)


def test_one_is_in_flight_at_a_time_and_the_last_is_waited_for(tmp_path):
    with background(tmp_path, []) as store:
        for step in range(1, 6):
            store.save(step, live(float(step)))
        store.save(6, live(6.0), must=True)
        assert manifest_fault(tmp_path / "step-00000006") is None, "a last one is there when the call returns"
    assert [step_of(path) for path in checkpoints(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert all(manifest_fault(path) is None for path in checkpoints(tmp_path))


def test_a_full_disk_in_the_background_is_said_and_a_bug_there_ends_the_run(tmp_path, monkeypatch):
    import smpo.engine.checkpoints.checkpoint as module

    def raising(error):
        def save_file(tensors, path):
            raise error

        return save_file

    said: list[str] = []
    with background(tmp_path, said) as store:
        monkeypatch.setattr(module, "save_file", raising(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
        store.save(1, live(1.0))
    assert "after update 1 could not be written (No space left on device); there is none before it" in said[0]
    monkeypatch.setattr(module, "save_file", raising(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError), background(tmp_path, said) as store:
        store.save(2, live(2.0))
    with pytest.raises(KeyboardInterrupt), background(tmp_path, said) as store:
        store.save(3, live(3.0))
        raise KeyboardInterrupt  # the first reason is the one that is told
