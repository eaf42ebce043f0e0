"""The comparison page: complete in itself, escaped, and alive in a real browser; its votes become training data."""

import html
import json
import re

import numpy as np
import pytest
from PIL import Image

from smpo.app.evaluate.page import convert_votes
from smpo.errors import RunError
from smpo.evaluation.report.compare_page import Background, Shown, compare_page
from smpo.evaluation.results.comparison import Judge, rank
from smpo.evaluation.sampling.slots import SamplingSettings, slots
from smpo.kinds import Prompt
from tests.browser import browse, in_browser
from tests.cli.words import smpo

NASTY = '</script><img src=x onerror="document.title=1"> %DATA% & "quotes"'


def page(count: int = 6, side: int = 32) -> str:
    prompts = [Prompt(f"a {colour} dog", category="dogs") for colour in ("red", "blue", "green")]
    prompts += [Prompt(NASTY, category="odd")] + [Prompt(f"cat {k}", category="cats") for k in range(count - 4)]
    rng = np.random.default_rng(0)
    base = rng.normal(size=(count, 1))
    scores = {
        "base": {"judge": base, "reward": base},
        "one <b>": {"judge": base + 0.5, "reward": base + 1},
        "two": {"judge": base + rng.normal(size=(count, 1)), "reward": base - 1},
    }
    contest = rank(
        prompts,
        [Judge("judge", "j", False, False), Judge("reward", "r", True, True)],
        scores,
        settings=SamplingSettings(guidance=3.0, steps=10, images=1, seed=1),
        prompt_set="toys",
        role="untouched",
    )
    hues = ((200, 60, 60), (60, 160, 60), (60, 60, 200))
    shown = [
        Shown(slot, [Image.new("RGB", (side, side), tuple(c - 8 * slot.prompt for c in hue)) for hue in hues])
        for slot in slots(prompts, images=1, seed=1)
    ]
    curves = {name: {"train/loss": [(k, 0.7 - 0.001 * k) for k in range(400)]} for name in ("one <b>", "two")}
    settings = {
        "one <b>": {"train.lr": 1e-4, "smoothing.use": NASTY},
        "two": {"train.lr": 3e-4, "smoothing.use": NASTY},
    }
    return compare_page(contest, shown, Background(curves, settings))


def data(text: str):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def test_nothing_is_fetched_and_nothing_from_outside_is_markup():
    text = page()
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", text) and "http://" not in text and "https://" not in text
    assert "onerror" not in text.replace(html.escape(NASTY), "").replace(
        json.dumps(NASTY)[1:-1].replace("<", "\\u003c"), ""
    )
    assert text.count("<script") == 2 and "%DATA%" in data(text)["prompts"][3]["text"]
    assert "one &lt;b&gt;" in text and "one <b>" not in text
    assert "default-src 'none'" in text


def test_pictures_are_kept_once_and_in_full():
    found = data(page())
    assert len(found["pictures"]) == 3 * 6 and found["votable"]
    assert all(uri.startswith("data:image/png;base64,") for uri in found["pictures"])
    assert data(page(side=300))["pictures"][0].startswith("data:image/jpeg;base64,")


def test_specs_show_what_differs():
    text = page()
    assert "train.lr" in text and "1 other settings are the same" in text


@in_browser
def test_it_comes_to_life(tmp_path):
    dom = browse(page(), tmp_path)
    assert dom.count('<article class="card">') == 6 and "6 of 6 shown" in dom
    assert "<b>one &lt;b&gt;</b>" in dom and "onerror=&quot;" not in dom.split("<h3>")[0]
    script = "<script>$('show').value='loss'; $('right').value=2; $('judge').value=1; $('judge').onchange()</script>"
    assert "6 of 6 shown; right wins 0, ties 0, loses 6" in browse(
        page().replace("</body>", script + "</body>"), tmp_path
    )


@in_browser
def test_blind_votes_become_pairs_that_train(tmp_path):
    script = """<script>
      for (const label of [1, 0, 0.5, 1, 1]) vote(label);
      $("undo").click();
      const told = JSON.stringify({ format: "smpo-votes-1", rows: rows() });
      document.body.append(make("pre", { id: "out", textContent: told }));
    </script>"""
    dom = browse(page().replace("</body>", script + "</body>"), tmp_path, anchor="#show-blind")
    assert "4 votes, 14 pairs left" in dom
    votes = tmp_path / "votes.json"
    votes.write_text(html.unescape(re.search(r'<pre id="out">(.*?)</pre>', dom, re.S)[1]))
    to = tmp_path / "votes.parquet"
    assert convert_votes(votes, to) == 4

    import pyarrow.parquet as pq

    rows = pq.read_table(to).to_pylist()
    assert [row["label_0"] for row in rows] == [1.0, 0.0, 0.5, 1.0]
    assert rows[2]["best_image_uid"] == "none" and not rows[2]["has_label"]
    assert rows[0]["best_image_uid"] == rows[0]["image_0_uid"] and rows[0]["jpg_0"][:4] == b"\x89PNG"

    from smpo.data.pairs.pickapic import read_pickapic

    table = read_pickapic(to)
    assert len(table) == 3, "the tie is dropped"


@pytest.mark.slow
@in_browser
def test_a_spec_trains_on_blind_votes(tmp_path, monkeypatch, capfd):
    """The whole way: two models side by side, votes in the browser, a preference file, an update on it."""
    monkeypatch.chdir(tmp_path)
    captions = ["a red circle on a black background", "a blue star on a white background"]
    prompts = [Prompt(text, group=text) for text in captions]
    scores = {name: {"judge": np.full((2, 1), value)} for name, value in (("base", 0.0), ("ours", 1.0))}
    how = SamplingSettings(guidance=2.0, steps=4, images=1, seed=0)
    held = rank(prompts, [Judge("judge", "j", False, False)], scores, settings=how)
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(4)]
    shown = [Shown(slot, pictures[2 * k : 2 * k + 2]) for k, slot in enumerate(slots(prompts, images=1, seed=0))]
    script = """<script>
      vote(1); vote(0);
      const told = JSON.stringify({ format: "smpo-votes-1", rows: rows() });
      document.body.append(make("pre", { id: "out", textContent: told }));
    </script>"""
    dom = browse(compare_page(held, shown).replace("</body>", script + "</body>"), tmp_path, anchor="#show-blind")
    (tmp_path / "votes.json").write_text(html.unescape(re.search(r'<pre id="out">(.*?)</pre>', dom, re.S)[1]))
    assert smpo(capfd, "compare", "--votes", "votes.json", "--to", "votes.parquet").code == 0
    sets = ["data={use: pickapic, path: votes.parquet}", "objective=dpo", "smoothing=hard", "inversion=none"]
    sets += ["train.steps=1", "train.warmup=0", "train.batch=2", "evaluate.limit=2", "evaluate.steps=1"]
    ran = smpo(capfd, "run", "quickstart", "-q", *(word for one in sets for word in ("--set", one)))
    assert ran.code == 0, ran.err
    (report,) = tmp_path.glob("runs/quickstart/*/data_report.json")
    assert json.loads(report.read_text())["pairs"] == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [("{}", "can't be read"), ('{"format": "x", "rows": []}', "not a file of votes"),
     ('{"format": "smpo-votes-1", "rows": [{"caption": "a"}]}', "vote 1 is incomplete")],
)  # fmt: skip
def test_what_is_no_vote_is_refused(content, says, tmp_path):
    file = tmp_path / "votes.json"
    file.write_text(content)
    with pytest.raises(RunError, match=says):
        convert_votes(file, tmp_path / "out.parquet")
