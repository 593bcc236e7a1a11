"""Prism splits slow bundles; the state of a key must survive that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

JOB = """
import time
import apache_beam as beam
from apache_beam.coders import VarIntCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindow
from k2beam.job.beam import work_as_we_need
from k2beam.job.options import beam_options

class Slow(beam.DoFn):
    BAG = BagStateSpec("bag", VarIntCoder())
    END = TimerSpec("end", TimeDomain.WATERMARK)

    def process(self, element, bag=beam.DoFn.StateParam(BAG), end=beam.DoFn.TimerParam(END)):
        bag.add(element[1])
        end.set(GlobalWindow().max_timestamp())
        time.sleep(0.2)

    @on_timer(END)
    def at_end(self, bag=beam.DoFn.StateParam(BAG)):
        yield len(list(bag.read()))

work_as_we_need()
pipeline = beam.Pipeline(options=beam_options(["--runner=PrismRunner"]))
numbers = pipeline | beam.Create(range(20)) | beam.Map(lambda n: ("key", n)).with_output_types(tuple[str, int])
numbers | beam.Reshuffle() | beam.ParDo(Slow()) | beam.Map(lambda kept: print("kept", kept, flush=True))
pipeline.run().wait_until_finish()
"""


def test_what_a_slow_bundle_wrote_to_the_state_of_its_key_is_kept(prism: Path) -> None:
    """Without ``work_as_we_need`` about half of it is lost."""
    done = subprocess.run(
        [sys.executable, "-c", JOB],
        env=os.environ | {"K2BEAM_PRISM": str(prism)},
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    assert "kept 20" in done.stdout.splitlines()
