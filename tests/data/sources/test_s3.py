"""Data in a bucket, as a person reads it: a server on this machine that speaks S3 (moto), the address in the spec, the
keys in the environment. `nox -s s3` runs these, in an environment of its own: boto is large."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.data.sources.test_remote import rows, tar
from tests.data.worlds import write
from tests.pipelines.worlds import make_pickscore, make_sd

pytestmark = pytest.mark.s3


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A place with a spec, and what the environment says of the bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    told = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "some", "AWS_SECRET_ACCESS_KEY": "thing",
            "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    client = boto3.client(
        "s3", endpoint_url=told["AWS_ENDPOINT_URL"], region_name="us-east-1",
        aws_access_key_id="some", aws_secret_access_key="thing",
    )  # fmt: skip
    client.create_bucket(Bucket="pairs")
    place = tmp_path_factory.mktemp("s3")
    for part in (0, 1):
        file = write(place / f"part-{part:04d}.parquet", rows(4 * part, 4))
        client.upload_file(str(file), "pairs", f"votes/{file.name}")
        client.put_object(Bucket="pairs", Key=f"tars/pairs-{part:04d}.tar", Body=tar(4 * part, 4))
    make_sd(place / "sd")
    weights, processor = make_pickscore(place)
    (place / "spec.yaml").write_text(f"""\
name: far
model: {{use: stable-diffusion, weights: {place / "sd"}}}
data: {{use: pickapic, path: "s3://pairs/votes"}}
reward: {{use: clip-preference, weights: {weights}, processor: {processor}}}
objective: smpo
smoothing: likelihood
inversion: none
train: {{steps: 1, batch: 4, lr: 1.0e-4}}
runtime: {{device: cpu, threads: 1, tracking: none}}
""")
    yield place, told
    server.stop()


def smpo(bucket: tuple[Path, dict[str, str]], *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    place, told = bucket
    return subprocess.run(
        [sys.executable, "-m", "smpo", *words], cwd=place, capture_output=True, text=True,
        env={**os.environ, **told, **more},
    )  # fmt: skip


TARS = 'data={use: webdataset, path: "s3://pairs/tars/pairs-{0000..0001}.tar"}'


@pytest.mark.parametrize("sets", [[], ["-s", TARS]], ids=["parquet", "tars"])
def test_pairs_in_a_bucket_are_audited_scored_and_trained_on(bucket: Any, sets: list[str]) -> None:
    audited = smpo(bucket, "data", "audit", "spec.yaml", "--no-score", *sets)
    assert audited.returncode == 0, audited.stderr
    assert "8 rows, 8 of them sound: 8 pairs with 8 votes" in audited.stdout
    scored = smpo(bucket, "score", "spec.yaml", *sets)
    assert scored.returncode == 0 and "16 for 8 pairs" in scored.stdout, scored.stderr
    trained = smpo(bucket, "run", "spec.yaml", "-q", *sets)
    assert trained.returncode == 0, trained.stderr


@pytest.mark.parametrize(
    ("path", "more", "said"),
    [
        ("s3://pairs/votes/part-0009.parquet", {}, "there is no such file"),
        ("s3://elsewhere/votes", {}, "s3://elsewhere/votes can't be listed: there is no such file"),
        ("s3://pairs/votes", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "Could not connect to the endpoint"),
    ],
)
def test_what_is_wrong_with_an_address_is_said(bucket: Any, path: str, more: dict[str, str], said: str) -> None:
    done = smpo(bucket, "data", "audit", "spec.yaml", "--no-score", "-s", f"data.path={path}", **more)
    assert done.returncode == 3 and said in done.stderr and "Traceback" not in done.stderr
