"""What strangers wrote (prompts, labels, file names, notes) on every page and card that smpo writes.

Each page is parsed as a browser would: no element, attribute or address may come from the hostile text. Where there is
a Chromium, the pages are opened in it too, and nothing may run.
"""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import markdown
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smpo.evaluation.results.comparison import Judge, rank
from smpo.evaluation.sampling.slots import SamplingSettings
from smpo.kinds import Prompt
from tests.browser import CHROMIUM, REQUIRED, browse, in_browser
from tests.cli.words import SMALL_PLANE, smpo
from tests.data.worlds import SCHEMA, jpeg, vote

PWNED = "document.documentElement.setAttribute('pwned', '1')"
NASTY = [
    f"<script>{PWNED}</script>",
    f'"><img src=x onerror="{PWNED}">',
    f"'><svg/onload={PWNED}>",
    f"</title></style></textarea></script><script>{PWNED}</script>",
    f"<iframe srcdoc='<script>parent.{PWNED}</script>'></iframe>",
    f"[click](javascript:{PWNED})",
    f"![x](x){{onerror={PWNED}}}",
    f"`</code><script>{PWNED}</script>`",
    "{{ 7 * 7 }} {% raw %} <base href=//evil.example>",
    f"<a href='javascript:{PWNED}' autofocus onfocus={PWNED}>x</a>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "\u202e]]><!--<script>",
    f"a | b |\n\n<script>{PWNED}</script>\n",
]


class Parsed(HTMLParser):
    """Elements and attributes of a page, as a browser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def assert_harmless(text: str, folder: Path, scripts: int = 0) -> None:
    found = Parsed(text)
    assert found.tags.count("script") == scripts
    assert not {"iframe", "base", "object", "embed", "form"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert not [value for name, value in found.attributes if name in ("src", "href") and "javascript:" in value.lower()]
    assert not [v for n, v in found.attributes if n == "http-equiv" and v.lower() == "refresh"]
    addresses = "".join(v for n, v in found.attributes if n in ("src", "href", "content", "action", "srcdoc", "style"))
    assert "evil.example" not in addresses
    assert ">49 " not in text, "a template ran what it was given"
    if CHROMIUM is not None or REQUIRED:
        assert "pwned" not in re.sub(re.escape(html.escape(PWNED)), "", _root(opened(text, folder)))


def _root(dom: str) -> str:
    """The page's root element, where a payload would have left its mark."""
    found = re.search(r"<html[^>]*>", dom)
    assert found is not None
    return found[0]


def opened(text: str, folder: Path) -> str:
    return browse(text, folder, "--virtual-time-budget=2000")


@in_browser
def test_the_browser_would_run_it(tmp_path):
    """Unescaped, the payload does leave its mark: the tests below can fail."""
    assert "pwned" in _root(opened(f"<html><body>{NASTY[0]}</body></html>", tmp_path))


def hostile_pairs(folder: Path) -> Path:
    rows = [vote(text, jpeg(2 * i), jpeg(2 * i + 1)) for i, text in enumerate([*NASTY, *NASTY])]
    rows += [vote(text, b"no picture " + text.encode(), jpeg(99)) for text in NASTY]
    file = folder / "<img src=x onerror=alert(1)> train.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), file)
    return file


def test_the_audit_page_of_hostile_pairs(tmp_path, monkeypatch, capfd):
    from smpo.data.audit.checks import Expected, audit
    from smpo.data.audit.page import page
    from smpo.data.audit.rows import read_audit_rows
    from smpo.data.sources.pickapic import pickapic_source

    found = audit(read_audit_rows(pickapic_source(hostile_pairs(tmp_path))), Expected(64, held_out={NASTY[0]: NASTY}))
    assert found.findings, "there is something to show"
    found.notes.extend(NASTY)
    assert_harmless(page(NASTY[1], found, None), tmp_path)


def contest():
    prompts = [Prompt(text, category=text, group=text) for text in NASTY]
    scores = np.random.default_rng(0).normal(size=(len(NASTY), 1))
    table = {"base": {NASTY[2]: scores}} | {text: {NASTY[2]: scores + 1} for text in NASTY}
    return rank(
        prompts,
        [Judge(NASTY[2], "k", True, True)],
        table,
        settings=SamplingSettings(guidance=3.0, steps=10, images=1, seed=1),
        prompt_set=NASTY[3],
        role=NASTY[1],
    )


def test_the_comparison_page(tmp_path):
    from smpo.evaluation.report.compare_page import Background, Shown, compare_page
    from smpo.evaluation.sampling.slots import slots

    held = contest()
    shown = [
        Shown(slot, [np.zeros(2, np.float32)] * (len(NASTY) + 1)) for slot in slots(held.prompts, images=1, seed=1)
    ]
    curves = {text: {text: [(0, 1.0), (1, 2.0)]} for text in NASTY}
    text = compare_page(held, shown, Background(curves, {text: {text: text} for text in NASTY}), title=NASTY[3])
    assert_harmless(text, tmp_path, scripts=2)


def test_tables_of_contests_and_ablations_as_markdown(tmp_path):
    """As a forge or MLflow would show them, but with HTML let through: nothing may be left to sanitise."""
    from smpo.evaluation.report import comparison_text as contest_text
    from smpo.evaluation.report.markdown import markdown_table

    text = contest_text.markdown(contest()) + markdown_table([{NASTY[0]: cell, NASTY[1]: cell} for cell in NASTY])
    assert_harmless(f"<html>{markdown.markdown(text, extensions=['tables'])}</html>", tmp_path)


def test_the_model_card(tmp_path):
    from smpo.evaluation.report.model_card import CardFacts, model_card

    facts = CardFacts(
        name=NASTY[0], method=NASTY[1], parts={NASTY[2]: (NASTY[1], NASTY[2])}, spec_hash=NASTY[3], base_model=NASTY[4],
        settings={text: text for text in NASTY}, datasets=NASTY, data={text: text for text in NASTY},
        load_lines=NASTY, limitations=NASTY, versions={text: text for text in NASTY}, license="mit",
    )  # fmt: skip
    body = model_card(facts).split("---\n", 2)[2]
    rendered = markdown.markdown(body, extensions=["tables", "fenced_code"])
    assert_harmless(f"<html>{rendered}</html>", tmp_path)


def test_the_report_of_a_sweep(tmp_path):
    from smpo.sweep.chart import _Chart

    with _Chart(NASTY[0], NASTY[1], NASTY[2]) as chart:
        chart.axes.set_xticks(range(len(NASTY)), [text[:18] for text in NASTY], parse_math=False)
    (svg,) = re.findall(r"<svg.*</svg>", chart.svg, re.DOTALL)
    assert_harmless(f"<html><body>{svg}</body></html>", tmp_path)


def test_a_run_with_hostile_notes_and_tags(tmp_path, monkeypatch, capfd):
    """Through everything that a run writes; names, notes and tags are all that a spec brings of a stranger's text."""
    monkeypatch.chdir(tmp_path)
    tags = {f"t{number}": text for number, text in enumerate(NASTY)}
    Path("s.yaml").write_text(SMALL_PLANE + f"notes: {json.dumps(NASTY[0])}\ntags: {json.dumps(tags)}\n")
    assert smpo(capfd, "run", "s.yaml", "-q").code == 0
    said = smpo(capfd, "show", "small")
    assert said.code == 0 and "[click](javascript:" in said.out, "on a terminal it is text as it is"
    (card,) = Path("runs").glob("small/*/model/README.md")
    rendered = markdown.markdown(card.read_text().split("---\n", 2)[2], extensions=["tables", "fenced_code"])
    assert_harmless(f"<html>{rendered}</html>", tmp_path)
