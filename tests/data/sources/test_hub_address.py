"""`hf://` against a hub on this machine, which answers what huggingface_hub asks for: listings, and ranges of files."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.data.sources.test_remote import rows
from tests.data.worlds import write

FILE = "data/train-00000-of-00001.parquet"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """Its address, and the paths that it was asked for."""
    data = write(tmp_path / "votes.parquet", rows(0, 6)).read_bytes()
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            if "/resolve/" in self.path:
                first, last = (int(one) for one in self.headers["Range"].removeprefix("bytes=").split("-"))
                last = min(last, len(data) - 1)
                told = {
                    "Content-Range": f"bytes {first}-{last}/{len(data)}",
                    "ETag": '"1"',
                    "X-Repo-Commit": "a" * 40,
                }
                self.answer(206, data[first : last + 1], told)
            elif "/tree/" in self.path:
                self.answer(200, [{"type": "file", "path": FILE, "size": len(data), "oid": "b" * 40}])
            elif self.path.startswith("/api/datasets/owner/name"):
                self.answer(200, {"id": "owner/name", "sha": "a" * 40, "siblings": [{"rfilename": FILE}]})
            else:
                self.answer(404, {"error": "not here"})

        def answer(self, code: int, body: Any, headers: dict[str, str] | None = None) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(code)
            for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()


def test_pairs_on_the_hub_are_read_at_their_revision(tmp_path: Path, hub: tuple[str, list[str]]) -> None:
    address, asked = hub
    spec = tmp_path / "spec.yaml"
    spec.write_text("""\
name: far
model: plane
data: {use: pickapic, path: "hf://datasets/owner/name@v1/data"}
objective: smpo
smoothing: votes
inversion: none
train: {steps: 1, batch: 4, lr: 1.0e-4}
runtime: {device: cpu, threads: 1, tracking: none}
""")
    told = {
        **os.environ,
        "HF_ENDPOINT": address,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "0",
    }
    done = subprocess.run(
        [sys.executable, "-m", "smpo", "data", "audit", spec.name],
        cwd=tmp_path, env=told, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "6 rows, 6 of them sound: 6 pairs with 6 votes" in done.stdout
    assert any("/tree/v1/data" in path for path in asked)
    assert {path.split("?")[0] for path in asked if "/resolve/" in path} == {f"/datasets/owner/name/resolve/v1/{FILE}"}
