"""The page as one file of HTML with its style, its scripts and Apache ECharts in it, so that it needs no network.

The values go in as JSON, and only the page's script reads them: what the tables hold is never taken for markup.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

_SCRIPTS = ("tables.js", "charts.js", "live.js")


def render(contents: Mapping[str, Any], title: str, refresh_ms: int = 0) -> str:
    """The page that shows ``contents`` (:func:`k2beam.report.contents.gather_contents`).

    With ``refresh_ms`` it asks the server that it came from for new ones so often, and else no one.

    Examples:
        >>> from k2beam import Lake
        >>> from k2beam.report import ReportSelection, gather_contents, render
        >>> page = render(gather_contents(Lake("warehouse"), ReportSelection()), "my lake")
        >>> page.count("<title>my lake</title>"), "https://" in page.split("</style>")[0]
        (1, False)
    """
    return Template(_part("page.html")).substitute(
        title=html.escape(title),
        every=refresh_ms,
        connect="'self'" if refresh_ms else "'none'",
        style=_part("page.css"),
        release=contents["release"],
        contents=json.dumps(contents, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        charts=_part("echarts.min.js"),
        script="\n".join(map(_part, _SCRIPTS)),
    )


@cache
def _part(name: str) -> str:
    """A file of the page, read once."""
    return (files("k2beam.report") / "page" / name).read_text(encoding="utf-8")
