"""Checks of this project: CI runs these sessions, and `nox -s NAME` runs one.

Inside an environment that has smpo, sessions run in it; elsewhere nox makes one (alone: lint, types, docs, tests).
"""

import importlib.util
from pathlib import Path

import nox

nox.options.default_venv_backend = "none" if importlib.util.find_spec("smpo") else "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "docs", "tests"]

# One thread: two that compete for two cores are many times slower than one. No hub, no telemetry in tests.
ENV = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "1",
}


def _setup(session: nox.Session) -> None:
    if session.venv_backend != "none":
        session.install("-e", ".[dev]")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, layers, and every shipped spec."""
    _setup(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-cache")
    session.run("smpo", "check", *sorted(str(p) for p in _specs()), env=ENV)
    session.run("smpo", "registry", "check", env=ENV)


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict."""
    _setup(session)
    session.run("mypy", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Everything that needs neither a network nor a GPU nor minutes. Pages are opened in Chromium where there is one;
    SMPO_BROWSER=required fails without it."""
    _setup(session)
    session.run("pytest", "-n", "2", *session.posargs, env=ENV)


QUICK = (
    "components", "contracts", "data", "engine", "evaluation", "imaging", "maths", "registry", "rewards", "runs",
    "spec", "tracking", "cli/test_errors.py", "test_paths.py", "test_prose.py",
)  # fmt: skip
"""Of tests/: what needs no process of its own, in a minute and a half of two cores."""


@nox.session
def quick(session: nox.Session) -> None:
    """The tests of single parts, while you work on one."""
    _setup(session)
    session.run("pytest", "-n", "2", *(f"tests/{name}" for name in QUICK), *session.posargs, env=ENV)


@nox.session
def slow(session: nox.Session) -> None:
    """Minutes, not seconds: whole runs of the shipped specs."""
    _setup(session)
    session.run("pytest", "-m", "slow", "-p", "no:xdist", *session.posargs, env=ENV)


@nox.session(venv_backend="virtualenv")
def s3(session: nox.Session) -> None:
    """Data in a bucket, against a server on this machine. Always in an environment of its own: boto is large."""
    session.install("-e", ".[dev,s3]", "moto[server]>=5")
    session.run("pytest", "-m", "s3", "-p", "no:xdist", "tests/data/sources/test_s3.py", *session.posargs, env=ENV)


@nox.session
def pretended_gpu(session: nox.Session) -> None:
    """The CUDA path on a pretended GPU: crashes, waits, memory; no numbers. tools/pretended_gpu/README.md has the rest.

    The environment is kept between calls. Where the machine lacks something for it, the session prints one line and
    succeeds.
    """
    _setup(session)
    # Each file in one process: the matrix of settings is quick because its runs share what is loaded.
    spread = ("-n", "2", "--dist", "loadfile")
    words = ("-m", "pytest", "-m", "pretended and not slow", *spread, "tests/pretended")
    _pretended(session, *words, *session.posargs)


@nox.session
def pretended_gpu_results(session: nox.Session) -> None:
    """Run the matrix of settings on the pretended GPU, and write its result and the table of docs/devices.md."""
    _setup(session)
    if _pretended(session, "tools/pretended_gpu/write_results.py", *session.posargs):
        session.run("python", "benchmarks/tables.py", env=ENV)


def _pretended(session: nox.Session, *words: str) -> bool:
    """Run the Python of the pretended GPU; False, where its environment can't be built."""
    folder = Path(session.cache_dir).resolve() / "pretended_gpu"
    session.run("python", "tools/pretended_gpu/build.py", str(folder), env=ENV)
    if not (folder / "ready").exists():
        return False
    session.run(str(folder / "venv" / "bin" / "python"), *words, env=ENV, external=True)
    return True


@nox.session
def gpu(session: nox.Session) -> None:
    """Tests for a CUDA device, ten minutes at most. SMPO_TEST_DEVICE=cpu puts the CPU in its place."""
    _setup(session)
    session.run("pytest", "-m", "gpu", "-p", "no:xdist", "tests/gpu", *session.posargs, env=ENV)


@nox.session
def faults(session: nox.Session) -> None:
    """Inject every fault that has a test, and write what was survived: the table of docs/reliability.md."""
    _setup(session)
    # With `=`: a file that exists would be taken for the tests to run, until the option is known.
    results = "--reliability=benchmarks/results/reliability.json"
    session.run("pytest", "-m", "fault", "-p", "no:xdist", results, *session.posargs, env=ENV)
    session.run("python", "benchmarks/reliability_page.py", env=ENV)


@nox.session
def machines(session: nox.Session) -> None:
    """The numerical tests under several instruction sets and thread counts: benchmarks/results/machines.json, and its
    table in docs/howto/reproduce.md. `nox -s machines -- --only "MKL: AVX2" --out FILE` runs one of them."""
    _setup(session)
    session.run("python", "benchmarks/machines.py", *session.posargs, env=ENV)
    session.run("python", "benchmarks/tables.py", env=ENV)


@nox.session
def schema(session: nox.Session) -> None:
    """Write what follows from the registry anew: the schema that editors read, the reference pages of the docs.

    Tests fail when they are stale.
    """
    _setup(session)
    session.run("smpo", "schema", "--shipped", "--write", "registry/schema.json", env=ENV)
    session.run("python", "docs/generate.py", env=ENV)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into site/; warnings are errors. Its snippets are executed by `nox -s tests`."""
    _setup(session)
    session.run("python", "docs/generate.py", "--check", env=ENV)
    session.run("mkdocs", "build", "--strict", *session.posargs, env={**ENV, "NO_MKDOCS_2_WARNING": "1"})


@nox.session
def golden(session: nox.Session) -> None:
    """Write the golden error messages anew; read the diff before you commit it."""
    _setup(session)
    session.run(
        "pytest",
        "tests/spec",
        "tests/cli/test_errors.py",
        "tests/sweep/test_errors.py",
        "-q",
        env={**ENV, "SMPO_REGENERATE": "1"},
    )


@nox.session
def curves(session: nox.Session) -> None:
    """Write the tiny worlds' golden curves anew, after their weights or the mathematics changed on purpose."""
    _setup(session)
    session.run("pytest", "tests/golden", "-q", "-p", "no:xdist", env={**ENV, "SMPO_REGENERATE": "1"})


@nox.session
def security(session: nox.Session) -> None:
    """Bandit, known vulnerabilities of what is installed, and the fuzzing, harder. Not one of the default sessions.

    The second asks PyPI's advisory service. Where that can't be reached the session says so and goes on: the answer is
    then missing, not good.
    """
    _setup(session)
    if importlib.util.find_spec("bandit") is None or importlib.util.find_spec("pip_audit") is None:
        session.install("bandit>=1.8", "pip-audit>=2.9")
    session.run("bandit", "-q", "-r", "smpo", "-c", "pyproject.toml")
    _audit(session)
    session.run("pytest", "tests/hostile", "-q", "-p", "no:xdist", env={**ENV, "SMPO_FUZZ": "300"})


def _audit(session: nox.Session) -> None:
    import json

    report = Path(session.create_tmp()) / "audit.json"
    report.unlink(missing_ok=True)
    session.run(
        *("pip-audit", "--skip-editable", "--progress-spinner", "off", "--timeout", "15", "-f", "json"),
        *("-o", str(report)),
        success_codes=[0, 1],
    )
    packages = json.loads(report.read_text())["dependencies"] if report.exists() else []
    known = [one for one in packages if "skip_reason" not in one]
    if not known:
        session.warn("NOT AUDITED: the advisory service can't be reached from here; run this where there is a network")
    for one in known:
        for flaw in one["vulns"]:
            session.warn(f"{one['name']} {one['version']}: {flaw['id']}, mended in {flaw['fix_versions'] or 'nothing'}")
    if any(one["vulns"] for one in known):
        session.error("known vulnerabilities")


@nox.session(venv_backend="virtualenv", reuse_venv=False)
def build(session: nox.Session) -> None:
    """Build the wheel, install it in a clean environment, and run the quickstart from it, away from the checkout."""
    session.install("build", "hatchling")
    target = session.create_tmp()
    session.run("python", "-m", "build", "--outdir", f"{target}/dist", silent=True)
    (wheel,) = Path(target, "dist").glob("*.whl")
    session.install(str(wheel))
    session.chdir(target)
    session.run("smpo", "--help", env=ENV, silent=True)
    session.run("smpo", "registry", "list", env=ENV)
    session.run("smpo", "run", "quickstart", *session.posargs, env=ENV)


def _specs() -> list[Path]:
    return [*Path("experiments").glob("*.yaml")]
