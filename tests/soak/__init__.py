"""A live job on Flink that is left alone with faults: ``python -m tests.soak --minutes 15 --seed 1``."""
