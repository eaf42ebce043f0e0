"""One HTML file that needs nothing else: no script, no font, no address; pictures lie in it as small PNGs.

Prompts, file names and notes are untrusted text: all is escaped, and a content policy in the page forbids scripts and
fetches besides. Pictures are drawn anew from pixels, never copied as bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from typing import Any

from PIL import Image

from smpo.data.audit.findings import Audit

__all__ = ["page"]

THUMB = 112
LONGEST_PROMPT = 280


def page(title: str, audit: Audit, picture: Callable[[str], Image.Image] | None) -> str:
    """`picture` gives an image by its id; examples are shown without pictures where it is None or fails."""
    from jinja2 import Environment, StrictUndefined

    @lru_cache(maxsize=4096)
    def thumbnail(name: str) -> str:
        if picture is None:
            return ""
        try:
            image = picture(name)
        except Exception:  # a broken one is an example of just that
            return ""
        image.thumbnail((THUMB, THUMB))
        stream = io.BytesIO()
        image.save(stream, "PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["short"] = lambda text: text if len(text) <= LONGEST_PROMPT else text[:LONGEST_PROMPT] + " …"
    template = environment.from_string((files(__package__) / "page.html.jinja").read_text(encoding="utf-8"))
    return template.render(title=title, audit=audit, thumbnail=thumbnail, thumb=THUMB, margins=_margins(audit))


def _margins(audit: Audit) -> dict[str, Any] | None:
    """The histogram as bars: left edge, height in percent, whether the reward agrees."""
    found = audit.margins
    if found is None:
        return None
    top = max(found.counts) or 1
    bars = [
        {
            "height": 100 * count / top,
            "agrees": found.edges[i] + found.edges[i + 1] > 0,
            "told": f"{found.edges[i]:.3g} to {found.edges[i + 1]:.3g}: {count:,}",
        }
        for i, count in enumerate(found.counts)
    ]
    return {"bars": bars, "left": f"{found.edges[0]:.3g}", "right": f"{found.edges[-1]:.3g}"}
