"""Freshness, lag, sizes and coverage for Prometheus, read from the tables and from Kafka, whatever runs the jobs."""
