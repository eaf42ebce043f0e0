"""Storages of studies: a journal file beside the runs, or a database that many machines share."""

from __future__ import annotations

import random
import re
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from smpo.errors import MachineError, RunError
from smpo.secrets import masked

__all__ = ["first_line", "open_storage", "trouble"]


_PATIENCE = 20.0
"""Seconds that a database may take to be there: several processes that create its tables at once get in each other's
way, and a server may be starting."""


def open_storage(where: str) -> Any:
    """An Optuna storage for a file (journal) or a URL: `postgresql+psycopg://…`, `mysql+pymysql://…`, `sqlite:///…`,
    `grpc://host:port`. Several processes may open a new one at once. Raises `RunError` where it can't be reached."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    if "://" not in where:
        return _journal(where)
    return _proxy(where) if where.startswith("grpc://") else _database(where)


def trouble() -> tuple[type[Exception], ...]:
    """Errors of a storage that can't be reached, or can't write, just now."""
    from optuna.exceptions import StorageInternalError

    found: list[type[Exception]] = [OSError, StorageInternalError]
    if (grpc := sys.modules.get("grpc")) is not None:
        found.append(grpc.RpcError)
    if (alchemy := sys.modules.get("sqlalchemy.exc")) is not None:
        found.append(alchemy.SQLAlchemyError)
    return tuple(found)


def _journal(where: str) -> Any:
    from optuna.storages import JournalStorage

    from smpo.sweep.journal import Journal

    if re.match(r"[a-z0-9+]+:/", where):
        raise RunError(f"{masked(where)} is neither a file nor an address", help="addresses begin as in `grpc://`")
    path = Path(where).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(Journal(path))
    except OSError as error:
        raise RunError(f"{where} can't be opened: {error.strerror or error}") from error
    except (ValueError, KeyError) as error:
        raise RunError(
            f"{where} is no journal of studies: {first_line(error)}",
            help="another file name begins a new one; a database of SQLite is `sqlite:///FILE`",
        ) from error


def _database(where: str) -> Any:
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import ArgumentError

    until, wait = time.monotonic() + _PATIENCE, 0.2
    while True:
        try:
            return RDBStorage(where, engine_kwargs=_engine(where))
        except ImportError as error:
            raise MachineError(
                f"the driver of {masked(where)} isn't installed ({error})",
                help="`pip install 'smpo[postgresql]'` for postgresql+psycopg://, `pip install 'smpo[mysql]'` for "
                "mysql+pymysql://",
            ) from error
        except Exception as error:
            if isinstance(error, ArgumentError) or time.monotonic() > until:
                raise RunError(
                    f"the storage {masked(where)} can't be opened: {masked(first_line(error), address=where)}",
                    help="another process holds it: wait, or use a journal file, which is made for many at once"
                    if "locked" in str(error)
                    else "create the database first, and look at user, password and host",
                ) from error
            time.sleep(wait * (1 + random.random()))  # noqa: S311
            wait *= 2


def _proxy(where: str) -> Any:
    """Optuna's proxy before a database: <https://optuna.readthedocs.io>, `run_grpc_proxy_server`."""
    from urllib.parse import urlsplit

    try:
        from optuna.storages import GrpcStorageProxy
    except ImportError as error:
        raise MachineError("Optuna's gRPC proxy needs `grpcio`", help="`pip install 'smpo[grpc]'`") from error
    try:
        parts = urlsplit(where)
        storage = GrpcStorageProxy(host=parts.hostname or "localhost", port=parts.port or 13000)
        storage.wait_server_ready(timeout=_PATIENCE)
    except (ConnectionError, ValueError) as error:
        raise RunError(
            f"no proxy answers at {masked(where)}: {first_line(error)}",
            help="the proxy is started beside the database: `optuna.storages.run_grpc_proxy_server`",
        ) from error
    return storage


def _engine(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": 60}}
    return {"pool_pre_ping": True, "pool_size": 2, "pool_recycle": 600}


def first_line(error: BaseException) -> str:
    """Of the message; the type's name where there is none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
