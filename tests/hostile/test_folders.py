"""Run folders and caches that were damaged, or that somebody else made: every command answers, and nothing leaves them.

Any exception that isn't worded fails a test: in-process commands raise it. SMPO_FUZZ=500 looks harder.
"""

import json
import os
import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smpo.runs.store import RunFolder, find_runs
from tests.cli.words import SMALL_PLANE, smpo
from tests.hostile.damage import damaged_json, damaged_tensors

fuzzed = settings(
    max_examples=int(os.environ.get("SMPO_FUZZ", "10")),
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with a spec, one finished run and its caches."""
    place = tmp_path_factory.mktemp("finished")
    (place / "small.yaml").write_text(SMALL_PLANE)
    from smpo.app.plan.plan import make_plan
    from smpo.app.run.run import run
    from smpo.cli.output import resolve_spec

    class Nobody:
        def __getattr__(self, name):
            return lambda *words: None

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        resolved = resolve_spec("small.yaml", [])
        run(resolved, make_plan(resolved), Nobody())
    return place


@pytest.fixture
def here(finished, tmp_path, monkeypatch) -> Path:
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def afresh(finished: Path, here: Path) -> None:
    for path in here.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(finished, here, dirs_exist_ok=True)


def spoil(file: Path, lot: random.Random) -> None:
    content = file.read_bytes()
    match file.suffix:
        case ".json":
            file.write_bytes(damaged_json(content, lot))
        case ".jsonl":
            lines = content.splitlines(keepends=True)
            at = lot.randrange(len(lines))
            lines[at] = damaged_json(lines[at], lot) + b"\n"
            file.write_bytes(b"".join(lines))
        case ".safetensors" if len(content) > 8:
            file.write_bytes(damaged_tensors(content, lot))
        case _:
            spoilt = bytearray(content[: lot.randrange(len(content) + 1)] if lot.random() < 0.5 else content)
            for _ in range(8 if spoilt else 0):
                spoilt[lot.randrange(len(spoilt))] ^= 1 << lot.randrange(8)
            file.write_bytes(bytes(spoilt))


LOOKS = [
    "show",
    "show --json",
    "doctor {}",
    "diff {} small.yaml",
    "verify {} --files-only",
    "show {}",
    "show {} --json",
]


@fuzzed
@given(seed=st.integers(0, 2**32))
def test_a_damaged_run_folder_is_looked_at_without_a_traceback(seed, finished, here, capfd):
    afresh(finished, here)
    lot = random.Random(seed)
    run = find_runs(Path("runs"))[-1].path
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.suffix != ".png"]
    texts = [path for path in files if path.suffix in (".json", ".jsonl", ".yaml")]
    file = lot.choice(texts if lot.random() < 0.8 else files)
    spoil(file, lot)
    words = lot.choice(LOOKS).format(run)
    assert smpo(capfd, *words.split()).code in (0, 1, 2, 3)
    if lot.random() < 0.3:
        assert smpo(capfd, "verify", run).code in (0, 1, 2, 3)


@fuzzed
@given(seed=st.integers(0, 2**32))
def test_a_damaged_cache_ends_no_run_in_a_traceback(seed, finished, here, capfd):
    """And a run that gets through has the same numbers: what can't be trusted is computed again.

    Except where a database was altered in several places so that sqlite finds it sound (docs/security.md).
    """
    afresh(finished, here)
    lot = random.Random(seed)
    files = [path for path in sorted(Path("runs/cache").rglob("*")) if path.is_file() and path.stat().st_size]
    spoil(file := lot.choice(files), lot)
    said = smpo(capfd, "run", "small.yaml", "--again", "-q")
    assert said.code in (0, 1, 3), said.err
    if said.code == 0 and file.suffix not in (".sqlite", ".db"):
        one, two = (json.loads((run.path / "evaluation.json").read_text()) for run in find_runs(Path("runs")))
        assert one["judgements"] == two["judgements"], file
    if said.code:
        assert said.err.startswith("error: ") or "\nerror: " in said.err
    assert smpo(capfd, "cache", "list", "runs/cache").code in (0, 1)
    assert smpo(capfd, "cache", "verify", "runs/cache").code in (0, 1)


def test_a_stored_score_that_was_altered_is_noticed(here, capfd):
    with sqlite3.connect("runs/cache/scores.db") as database:
        database.execute("UPDATE score SET value = value + 0.001 WHERE image = (SELECT MIN(image) FROM score)")
    said = smpo(capfd, "run", "small.yaml", "--again", "-q")
    assert said.code == 1 and "the cache is damaged" in said.err
    assert smpo(capfd, "cache", "clean", "runs/cache", "--what", "scores").code == 0
    assert smpo(capfd, "run", "small.yaml", "--again", "-q").code == 0


# ------------------------------------------------------------------------------------------------ nothing leaves them


def the_run() -> RunFolder:
    return find_runs(Path("runs"))[-1]


def artefacts(store: Path) -> str:
    """Everything that MLflow was given, as text."""
    files = [path for path in (store / "artifacts").rglob("*") if path.is_file()]
    return "".join(path.read_text(encoding="utf-8", errors="replace") for path in files)


@pytest.mark.parametrize("how", ["absolute", "climbing", "link", "linked folder"])
def test_a_log_sends_nothing_that_lies_outside_of_its_folder(how, here, tmp_path, capfd):
    """A run folder from somebody else must not make `track sync` upload the files of whoever looks at it."""
    secret = tmp_path / "secret.txt"
    secret.write_text("hunter2")
    run = the_run().path
    (run / "link.txt").symlink_to(secret)
    (run / "links").symlink_to(tmp_path)
    file = {"absolute": str(secret), "climbing": os.path.relpath(secret, run), "link": "link.txt",
            "linked folder": "links/secret.txt"}[how]  # fmt: skip
    with (run / "events.jsonl").open("a") as log:
        for event in (
            {"event": "artefact", "file": file, "folder": ""},
            {"event": "model", "file": file, "facts": {}},
        ):
            log.write(json.dumps({"time": 1.0, **event}) + "\n")
    said = smpo(capfd, "track", "sync", run, "--uri", f"sqlite:///{tmp_path}/store/mlflow.db")
    assert said.code == 0 and "outside" in said.err, said.err
    sent = artefacts(tmp_path / "store")
    assert "hunter2" not in sent and "# Resolved by smpo" in sent


def test_an_artefact_folder_does_not_climb_in_the_store(here, tmp_path, capfd):
    run = the_run().path
    with (run / "events.jsonl").open("a") as log:
        for folder in ("../../../../climbed", "/climbed", "..", "a/../../../climbed"):
            event = {"event": "artefact", "time": 1.0, "file": "plan.json", "folder": folder}
            log.write(json.dumps(event) + "\n")
    smpo(capfd, "track", "sync", run, "--uri", f"sqlite:///{tmp_path}/store/mlflow.db")
    assert not [path for path in tmp_path.rglob("climbed*") if "store/artifacts" not in path.as_posix()]


@pytest.mark.parametrize(
    "name", ["cache", "artifacts", "evaluations", "mlflow.db", "mlflow.db.lock", "..", "a/b", "-x"]
)
def test_names_that_would_lie_elsewhere_or_on_something_else_are_refused(name, here, capfd):
    said = smpo(capfd, "run", "small.yaml", "--set", f"name={json.dumps(name)}")
    assert said.code == 2 and "name" in said.err


def test_cleaning_a_cache_follows_no_links(here, tmp_path, capfd):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "photo.txt").write_text("mine")
    for store in [path.parent for path in Path("runs/cache").glob("*/*/index.sqlite")]:
        (store / "links").symlink_to(precious)
        (store / "photo.safetensors").symlink_to(precious / "photo.txt")
    for kind in ("latents", "prompts", "scores", "pairs"):
        assert smpo(capfd, "cache", "clean", "runs/cache", "--what", kind).code == 0
    assert (precious / "photo.txt").read_text() == "mine"


def test_old_checkpoints_that_are_links_are_left_alone(here, tmp_path, capfd):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "manifest.json").write_text("{}")
    (the_run().checkpoints / "step-00000001").symlink_to(precious)
    status = the_run().path / "status.json"
    status.write_text(status.read_text().replace('"done"', '"stopped"'))
    smpo(capfd, "run", "small.yaml", "--resume", "-q")
    assert (precious / "manifest.json").exists()


def test_a_link_in_a_model_that_leads_away_is_named(here, tmp_path, capfd):
    weights = the_run().model / "model.safetensors"
    weights.rename(tmp_path / "away.safetensors")
    weights.symlink_to(tmp_path / "away.safetensors")
    said = smpo(capfd, "verify", "small")
    assert said.code == 1 and "is a link that leads out" in said.out


def test_a_manifest_cannot_make_verify_read_elsewhere(here, tmp_path, capfd):
    (tmp_path / "secret.txt").write_text("hunter2")
    run = the_run().path
    for name in ("../../../../secret.txt", str(tmp_path / "secret.txt"), "a/../../../../../secret.txt"):
        (run / "files.json").write_text(json.dumps({"files": {name: {"bytes": 7, "sha256": "0"}}}))
        said = smpo(capfd, "verify", "small", "--files-only")
        assert said.code == 1 and "files.json can't be read" in said.out and "secret" not in said.out


def test_a_run_writes_only_in_its_folder_and_its_caches(tmp_path, monkeypatch, capfd):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "small.yaml").write_text(SMALL_PLANE)
    before = snapshot(tmp_path)
    assert smpo(capfd, "run", "small.yaml", "-q").code == 0
    added = {path for path in snapshot(tmp_path) if path not in before}
    assert all(path.startswith(("work/runs/small", "work/runs/cache")) or path == "work/runs" for path in added), added


def snapshot(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_the_ui_is_bound_to_this_machine(tmp_path):
    """Whoever else shares the network must not see it unasked, or upload to it."""
    from smpo.tracking.ui import ui_command

    sqlite3.connect(tmp_path / "mlflow.db").close()
    ui = ui_command(tmp_path, port=45_871)
    assert ui.command[ui.command.index("--host") + 1] == "127.0.0.1" and ui.url.startswith("http://127.0.0.1:")
