"""Data that is read where it lies: the same pairs as from disk, in memory and from a server on this machine."""

import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from smpo.components.adapters import ChosenRejected, HPDv3, ImageFolder, WebDataset
from smpo.components.datasets import PickAPic, PlacedData
from smpo.data.pairs.pickapic import read_pickapic
from smpo.data.sources import remote
from smpo.data.sources.remote import Stream, remote_files
from smpo.errors import MachineError
from smpo.imaging import content_id
from smpo.kinds import PairTable, Runtime
from tests.data.worlds import jpeg, vote, write


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE", 0.0)


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A folder behind http, with ranges and ETags as real servers have them; every request is written down."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            file = tmp_path / "served" / self.path.lstrip("/")
            asked.append(f"{self.command} {self.headers.get('Range', '')}")
            if not file.is_file():
                self.send_error(404)
                return
            data = file.read_bytes()
            tag, total = content_id(data), len(data)
            first, last = 0, total - 1
            if told := self.headers.get("Range"):
                first, last = (int(one) for one in told.removeprefix("bytes=").split("-"))
                last = min(last, total - 1)
            self.send_response(206 if told else 200)
            self.send_header("Content-Length", str(last - first + 1))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", tag)
            if told:
                self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data[first : last + 1])

        def log_message(self, *_: Any) -> None:
            pass

    (tmp_path / "served").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", tmp_path / "served", asked
    server.shutdown()
    fsspec.filesystem("http").invalidate_cache()


def rows(start: int, count: int) -> list[dict[str, Any]]:
    return [vote(f"p{i}", jpeg(2 * i), jpeg(2 * i + 1), float(i % 2)) for i in range(start, start + count)]


def tar(start: int, count: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for i in range(start, start + count):
            files = {"chosen.jpg": jpeg(2 * i), "rejected.jpg": jpeg(2 * i + 1), "txt": f"p{i}".encode()}
            for ending, data in files.items():
                member = tarfile.TarInfo(f"{i:04d}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def pairs(table: PairTable) -> list[Any]:
    return [table[i] for i in range(len(table))]


def load(data: PlacedData, tmp_path: Path) -> PairTable:
    assert data.check() is None
    return data.load(Runtime(cache=tmp_path / "cache"))


def test_parquet_in_a_folder_elsewhere_gives_the_pairs_of_the_folder_here(tmp_path: Path, memory: Any) -> None:
    for name, some in (
        ("train-00000-of-00002", rows(0, 5)),
        ("train-00001-of-00002", rows(5, 4)),
        ("test", rows(9, 2)),
    ):
        file = write(tmp_path / "set" / f"{name}.parquet", some)
        memory.pipe(f"/set/{name}.parquet", file.read_bytes())
    memory.pipe("/set/.cache/train.parquet", b"no data")
    there = load(PickAPic(path="memory://set", split="train"), tmp_path)
    here = read_pickapic(tmp_path / "set", split="train")
    assert (there.digest, pairs(there)) == (here.digest, pairs(here)) and len(there) == 9
    assert there.picture(there[7].loser).size == (24, 16)
    assert [part["name"] for part in there.report["files"]] == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    with pytest.raises(MachineError, match="several splits"):
        PickAPic(path="memory://set").source()


def test_an_index_is_remembered_until_the_file_changes(tmp_path: Path, memory: Any) -> None:
    memory.pipe("/one.parquet", write(tmp_path / "one.parquet", rows(0, 3)).read_bytes())
    data = PickAPic(path="memory://one.parquet")
    first = load(data, tmp_path)
    digests = [part.digest for part in data.source().parts()]
    assert digests == [part.digest for part in data.source().parts()]
    memory.pipe("/one.parquet", write(tmp_path / "one.parquet", rows(1, 3)).read_bytes())
    assert digests != [part.digest for part in data.source().parts()]
    assert pairs(load(data, tmp_path)) != pairs(first)


def test_tars_are_counted_out_and_fetched_once(tmp_path: Path, served: Any) -> None:
    url, folder, asked = served
    for number in range(3):
        (folder / f"data-{number:03d}.tar").write_bytes(tar(4 * number, 4))
    there = load(WebDataset(path=f"{url}/data-{{000..002}}.tar"), tmp_path)
    here = WebDataset(path=str(folder)).load(Runtime(cache=tmp_path / "other"))
    assert (there.digest, pairs(there)) == (here.digest, pairs(here)) and len(there) == 12
    assert sum(one.startswith("GET") for one in asked) <= 6, "names and bytes come from the same blocks"
    asked.clear()
    again = load(WebDataset(path=f"{url}/data-{{000..002}}.tar"), tmp_path)
    assert pairs(again) == pairs(there) and not any("bytes=" in one for one in asked), "the index was remembered"
    assert again.picture(again[11].winner).size == (24, 16)


def test_parquet_behind_http(tmp_path: Path, served: Any) -> None:
    url, folder, _ = served
    write(folder / "pairs.parquet", rows(0, 6))
    columns = {"prompt": "caption", "chosen": "jpg_0", "rejected": "jpg_1", "share": "label_0"}
    there = load(ChosenRejected(path=f"{url}/pairs.parquet", columns=columns), tmp_path)
    assert len(there) == 6 and there.picture(there[0].winner).size == (24, 16)
    with pytest.raises(MachineError, match=r"none\.parquet can't be read"):
        PickAPic(path=f"{url}/none.parquet").load(Runtime(cache=tmp_path / "cache"))


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("memory://nowhere", "no \\*.parquet file under"),
        ("zz://x/y.parquet", "nobody knows how to read `zz://`"),
        ("memory://x-{9..1}.parquet", "too many files, or none"),
        ("memory://x-{a,b}.parquet", "isn't understood"),
    ],
)
def test_addresses_that_lead_nowhere_are_told(path: str, told: str, memory: Any) -> None:
    with pytest.raises(MachineError, match=told):
        remote_files(path, ".parquet")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(protocol: str) -> Any:
        raise ImportError(f"Install {protocol}fs")

    remote._system.cache_clear()
    monkeypatch.setattr(fsspec, "filesystem", missing)
    assert PickAPic(path="s3://bucket/set").check() == "`s3://` needs a package that isn't installed: s3fs"
    with pytest.raises(MachineError) as told:
        PickAPic(path="s3://bucket/set").source()
    assert "pip install s3fs" in str(told.value.help)


def test_pictures_beside_annotations_are_not_streamed() -> None:
    for data in (ImageFolder(path="s3://bucket/set"), HPDv3(path="https://host/set")):
        assert data.check() == f"`{data.use}` reads no addresses: its pictures are files of their own"


def test_a_read_that_fails_is_tried_again() -> None:
    class Shaky(io.BytesIO):
        failures = 2

        def read(self, size: int | None = -1) -> bytes:
            super().read(1)  # what had come before the connection broke
            if Shaky.failures:
                Shaky.failures -= 1
                raise RuntimeError("connection reset")
            self.seek(self.tell() - 1)
            return super().read(size)

    assert Stream(lambda: Shaky(b"0123456789")).at(3, 4) == b"3456"
    Shaky.failures = 99
    with pytest.raises(OSError, match="connection reset"):
        Stream(lambda: Shaky(b"0123456789")).at(3, 4)
