"""Where studies live: a journal file beside the runs, or a database that many machines share."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from smpo.errors import MachineError, RunError

__all__ = ["open_storage", "shown"]


def open_storage(where: str) -> Any:
    """An Optuna storage for a file (journal) or a URL: `postgresql+psycopg://…`, `mysql+pymysql://…`, `sqlite:///…`,
    `grpc://host:port`. Several processes may open a new one at once."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if "://" not in where:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        path = Path(where).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path)))
    if where.startswith("grpc://"):
        return _proxy(where)
    from optuna.storages import RDBStorage

    last: Exception | None = None
    for attempt in range(6):
        try:
            return RDBStorage(where, engine_kwargs=_engine(where))
        except ImportError as error:
            raise MachineError(
                f"the driver of {shown(where)} isn't installed ({error})",
                help="`pip install 'psycopg[binary]'` for postgresql+psycopg://, `pip install pymysql` for MySQL",
            ) from error
        except Exception as error:  # several processes that create the tables at once get in each other's way
            last = error
            time.sleep((0.2 + random.random() * 0.3) * 2**attempt)  # noqa: S311
    raise RunError(
        f"the storage {shown(where)} can't be opened: {_first_line(last)}",
        help="create the database first, and look at user, password and host",
    )


def shown(where: str) -> str:
    """An address as it may be printed: without its password."""
    from urllib.parse import urlsplit, urlunsplit

    if "://" not in where:
        return where
    parts = urlsplit(where)
    if "@" not in parts.netloc:
        return where
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _engine(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": 60}}
    return {"pool_pre_ping": True, "pool_size": 2, "pool_recycle": 600}


def _proxy(where: str) -> Any:
    from urllib.parse import urlsplit

    try:
        from optuna.storages import GrpcStorageProxy
    except ImportError as error:
        raise MachineError(
            "Optuna's gRPC proxy needs `grpcio`", help="`pip install grpcio protobuf`"
        ) from error
    parts = urlsplit(where)
    return GrpcStorageProxy(host=parts.hostname or "localhost", port=parts.port or 13000)


def _first_line(error: Exception | None) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
