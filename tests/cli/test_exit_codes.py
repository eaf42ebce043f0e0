"""The shell's bad days: streams that are closed, full or speak no Unicode; folders that are none, or refuse."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.words import SMALL_PLANE, smpo
from tests.paths import python_path

PYTHON = [sys.executable, "-m", "smpo.cli.main"]
full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")


def shell(words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """`smpo WORDS` through a shell, so that streams can be bent."""
    command = f"'{sys.executable}' -m smpo.cli.main {words}"
    env = {**os.environ, "PYTHONPATH": python_path(), **environment}
    return subprocess.run(["/bin/sh", "-c", command], cwd=cwd, env=env, capture_output=True, timeout=120)


@pytest.mark.parametrize(
    "words",
    ["plan plane_smpo", "registry show renoise", "show", "plan plane_smpo --json", "plan nothing", "--help"],
)
def test_a_terminal_without_unicode(words, tmp_path):
    done = shell(words, tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert b"Traceback" not in done.stderr and done.returncode in (0, 2)
    done.stdout.decode("ascii")


def test_json_stays_whole_without_unicode(tmp_path):
    import json

    (tmp_path / "s.yaml").write_text(SMALL_PLANE + 'notes: "größer"\n')
    done = shell("plan s.yaml --json --full", tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert "größer" in json.dumps(json.loads(done.stdout), ensure_ascii=False)


@full_disk
@pytest.mark.parametrize("words", ["plan plane_smpo", "--help", "show --json"])
def test_output_that_cannot_be_written_is_a_sentence(words, tmp_path):
    done = shell(f"{words} > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr.decode().startswith("error: the system refused: No space left on device"), done.stderr


@full_disk
def test_errors_that_cannot_be_written_keep_their_code(tmp_path):
    assert shell("plan nothing 2> /dev/full", tmp_path).returncode == 2
    assert shell("show nothing 2> /dev/full", tmp_path).returncode == 1


def test_a_reader_that_has_seen_enough(tmp_path):
    done = shell("registry list | head -1", tmp_path)
    assert done.returncode == 0 and done.stderr == b""


@pytest.mark.parametrize("bent", [">&-", "<&- >&- 2>&-"])
def test_closed_streams(bent, tmp_path):
    done = shell(f"check plane_smpo {bent}", tmp_path)
    assert done.returncode == 0 and b"Traceback" not in done.stderr


def test_a_run_with_all_streams_closed_prints_into_none_of_its_files(tmp_path):
    """The first file to be opened would get the number of standard output."""
    (tmp_path / "s.yaml").write_text(SMALL_PLANE)
    done = shell("run s.yaml <&- >&- 2>&-", tmp_path)
    assert done.returncode == 0
    assert shell("verify small --files-only", tmp_path).returncode == 0
    assert shell("cache verify runs/cache", tmp_path).returncode == 0


@pytest.mark.parametrize("name", ["über 日本 100%", "-a b'c $(touch x)"])
def test_folders_and_specs_of_any_name(name, tmp_path, monkeypatch, capfd):
    place = tmp_path / name
    place.mkdir()
    monkeypatch.chdir(place)
    Path(f"{name} s.yaml").write_text(
        SMALL_PLANE.replace("threads: 1", f"threads: 1, runs: \"{name} r\", cache: '{name.replace(chr(39), '')} c'")
    )
    said = smpo(capfd, "run", "-q", "--", f"{name} s.yaml")
    assert said.code == 0, said.err
    assert smpo(capfd, "verify", "small", f"--runs={name} r", "--files-only").code == 0
    assert smpo(capfd, "show", "small", f"--runs={name} r").code == 0
    assert not (place / "x").exists()


def test_a_home_that_is_not_there(tmp_path):
    done = shell("doctor", tmp_path, HOME="/nonexistent", XDG_CACHE_HOME="/nonexistent")
    assert done.returncode in (0, 1) and b"Traceback" not in done.stderr
    assert shell("plan plane_smpo", tmp_path, HOME="/nonexistent").returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "--runs", "file"], "`--runs file` is a file"),
        (["show", "folder"], "`folder` is a folder, and not that of a run"),
        (["show", "other"], "`other` is a folder, and not that of a run"),
        (["verify", "folder"], "`folder` is a folder, and not that of a run"),
        (["rerun", "file"], "there is no run `file`"),
        (["doctor", ""], "there is no run ``"),
        (["eval", "folder"], "neither a run nor a model"),
        (["eval", "other"], "neither a run nor a model"),
        (["compare", "--votes", "folder"], "can't be read as votes"),
        (["compare", "--votes", "file"], "can't be read as votes"),
        (["registry", "list", "--registry", "file"], "there is no such folder"),
        (["plan", "plane_smpo", "--registry", "nowhere"], "there is no such folder"),
        (["schema", "--write", "nowhere/x"], "nowhere/x: No such file or directory"),
        (["schema", "--write", "folder"], "folder: Is a directory"),
        (["plan", "folder"], "`folder` is a folder, not a spec"),
        (["run", "file"], "error: "),
        (["track", "sync", "folder"], "`folder` is a folder, and not that of a run"),
        (["diff", "folder", "plane_smpo"], "`folder` is a folder"),
        (["sweep", "show", "folder"], "`folder` is a folder, not a spec"),
        (["cache", "verify", "nowhere"], "nowhere"),
        (["data", "audit", "folder"], "`folder` is a folder, not a spec"),
        (["score", "file"], "error: "),
    ],
)
def test_the_wrong_folder_is_answered_in_a_sentence(words, said, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("hello\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "status.json").write_text('{"state": "done", "tool": "another"}')
    found = smpo(capfd, *words)
    assert found.code in (1, 2, 3) and said in found.err, found.err
    assert "Traceback" not in found.err


def test_a_name_of_thousands_of_letters_is_not_said_back_in_full(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    said = smpo(capfd, "show", "x" * 5000)
    assert said.code == 1 and "File name too long" in said.err and len(said.err) < 600


REFUSED = [
    "run small.yaml --again",
    "rerun small",
    "score small.yaml",
    "cache clean runs/cache --what latents",
]


@pytest.mark.skipif(os.name != "posix", reason="rights are POSIX's")
def test_folders_that_may_only_be_read(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL_PLANE)
    assert smpo(capfd, "run", "small.yaml", "-q").code == 0
    tree = [tmp_path / "runs", *(path for path in (tmp_path / "runs").rglob("*") if path.is_dir())]
    for path in tree:
        path.chmod(0o555)
    try:
        if os.access(tmp_path / "runs", os.W_OK):  # root may write anything: then let the system call refuse
            _refuse_writes(monkeypatch, tmp_path / "runs")
        for words in REFUSED:
            said = smpo(capfd, *words.split())
            assert said.code == 1 and "Permission denied" in said.err, (words, said.err)
        for words in ("show", "show small", "doctor small", "verify small", "cache list runs/cache"):
            said = smpo(capfd, *words.split())
            assert said.code == 0, (words, said.err)
    finally:
        for path in tree:
            path.chmod(0o755)


def _refuse_writes(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    real = os.open

    def refuse(path, flags, *rest, **named):
        wanted = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if wanted and str(path).startswith(str(folder)):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)


def test_a_bug_keeps_its_traceback(monkeypatch):
    from smpo.cli.exit_codes import run_with_exit_code

    def bug():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_with_exit_code(bug)


def test_what_the_system_refuses_can_be_traced(monkeypatch, capfd):
    from smpo.cli.exit_codes import TRACEBACK, run_with_exit_code

    def refused():
        raise OSError(28, "No space left on device", "some/file")

    with pytest.raises(SystemExit) as end:
        run_with_exit_code(refused)
    said = capfd.readouterr().err
    assert end.value.code == 1 and said.startswith("error: some/file: No space left on device\n")
    assert "make room there" in said and "--resume" in said
    monkeypatch.setenv(TRACEBACK, "1")
    with pytest.raises(OSError, match="No space left"):
        run_with_exit_code(refused)


def test_libraries_are_quiet_whatever_the_command(capfd, monkeypatch):
    """Each of them may load a model, and what transformers has to say of torchvision isn't about anybody's data."""
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    assert smpo(capfd, "registry", "check").code == 0
    assert os.environ.get("TRANSFORMERS_VERBOSITY") == "error"
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    smpo(capfd, "registry", "check")
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info", "who asks for more gets it"
