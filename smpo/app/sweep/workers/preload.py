"""Everything that a trial imports, for the fork server. No computation: a forked process inherits no thread pool."""

import importlib
import os

from smpo.tracking.store import MLFLOW_ENVIRONMENT

__all__: list[str] = []

for _name, _value in {"OMP_NUM_THREADS": "1", **MLFLOW_ENVIRONMENT}.items():
    os.environ.setdefault(_name, _value)  # read by the libraries while they are imported

for _module in (
    "smpo.app.run.run", "smpo.app.run.train", "smpo.app.build.build", "smpo.app.evaluate.evaluate",
    "smpo.app.run.export",
    "smpo.app.sweep.workers.trial", "smpo.engine.loop", "smpo.engine.checkpoints.checkpoint",
    "smpo.engine.monitoring.alerts", "smpo.components",
    "smpo.registry.resolve", "smpo.families.plane", "smpo.tracking.mlflow", "smpo.tracking.console", "accelerate",
    "torch._dynamo", "mlflow", "mlflow.store.tracking.sqlalchemy_store", "mlflow.tracking.client", "scipy.stats",
    "PIL.PngImagePlugin", "matplotlib.backends.backend_agg", "matplotlib.figure",
    "jinja2", "huggingface_hub.repocard_data", "safetensors.numpy",
):  # fmt: skip
    importlib.import_module(_module)
