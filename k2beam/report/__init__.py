"""One page that shows a lake: whether it is right, how fresh it is, what is missing, and what the market did."""

from k2beam.report.contents import LagRows, ReportSelection, audit_verdict, gather_contents, topic_lag_rows
from k2beam.report.page import render
from k2beam.report.server import LivePage, PageServer

__all__ = [
    "LagRows",
    "LivePage",
    "PageServer",
    "ReportSelection",
    "audit_verdict",
    "gather_contents",
    "render",
    "topic_lag_rows",
]
