"""What the tests ask of a Prometheus server: its answers to queries, and targets for it to scrape."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from pathlib import Path


def query(url: str, expr: str) -> float | None:
    """The value of a query at this moment, from the server at ``url``; None where it has no series.

    Raises ValueError where it has several: sum them, or select one.
    """
    address = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=10) as answer:
        data = json.load(answer)["data"]
    if data["resultType"] == "scalar":
        return float(data["result"][1])
    if len(data["result"]) > 1:
        raise ValueError(f"{expr} has {len(data['result'])} series: {[each['metric'] for each in data['result']]}")
    return float(data["result"][0]["value"][1]) if data["result"] else None


def wait_for(url: str, expr: str, value: float | None, patience_s: float = 60.0) -> float | None:
    """Ask until the answer is ``value``, or patience ends; the last answer, to be compared by the test."""
    deadline = time.monotonic() + patience_s
    while (found := query(url, expr)) != value and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def write_target(folder: Path, name: str, address: str, **labels: str) -> Path:
    """Have Prometheus scrape ``host:port`` under a folder of ``LocalStack.prometheus_targets()``; delete it to end."""
    path = folder / f"{name}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps([{"targets": [address], "labels": labels}]), encoding="utf-8")
    partial.replace(path)
    return path
