"""Benchmarks: ratios beside a floor and a peer, measured in one run. ``make bench`` runs them."""
