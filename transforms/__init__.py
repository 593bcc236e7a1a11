"""The transforms. A worker process imports this before it runs any of them, so here it gets the logs of its job."""

from k2beam.logs import inherit_logging

inherit_logging()
