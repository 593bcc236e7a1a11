"""What is done to a running job: processes killed, servers away or halted. Each is over when it returns."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from typing import Final

from k2beam.stack.flink import EXPANSION, JOB_MANAGER, JOB_SERVER, SECOND_TASK_MANAGER, TASK_MANAGER
from tests.soak.rig import Rig

Fault = Callable[[Rig, random.Random], str]
"""Does it, and says what was done."""


def kill_a_worker(rig: Rig, chance: random.Random) -> str:
    workers = rig.workers()
    if not workers:
        return "there was no worker"
    chance.choice(workers).kill()
    return f"one of {len(workers)}"


def kill_the_pool(rig: Rig, chance: random.Random) -> str:
    del chance
    rig.pool.kill()
    return "and all of its workers"


def kill_the_client(rig: Rig, chance: random.Random) -> str:
    replaces = chance.random() < 0.5
    if replaces:
        rig.replace_next()
    rig.client.kill()
    return "the next one replaces its job" if replaces else "the next one attaches"


def away(name: str, at_most_s: float, at_least_s: float = 1) -> Fault:
    """A server is killed, and comes back with its data after some seconds."""

    def do(rig: Rig, chance: random.Random) -> str:
        seconds = chance.uniform(at_least_s, at_most_s)
        rig.stack.kill(name)
        time.sleep(seconds)
        rig.stack.start(name)
        return f"{seconds:.0f} s"

    return do


def halted(name: str, at_most_s: float) -> Fault:
    """A server answers nobody for some seconds, as in a network that is parted, and goes on as if nothing had been."""

    def do(rig: Rig, chance: random.Random) -> str:
        seconds = chance.uniform(2, at_most_s)
        [pid] = [server.pid for server in rig.stack.status() if server.name == name]
        if pid is None:
            return "it did not run"
        os.killpg(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.killpg(pid, signal.SIGCONT)
        return f"{seconds:.0f} s"

    return do


FAULTS: Final[dict[str, Fault]] = {
    "worker killed": kill_a_worker,
    "pool killed": kill_the_pool,
    "client killed": kill_the_client,
    "TaskManager away": away(TASK_MANAGER, 10),
    "second TaskManager away": away(SECOND_TASK_MANAGER, 10),
    "JobManager away": away(JOB_MANAGER, 10),
    "job server away": away(JOB_SERVER, 5),
    "expansion service away": away(EXPANSION, 5),
    "broker away": away("kafka", 20),
    "registry away": away("registry", 20),
    "catalog away": away("postgres", 30),
    "store away": away("s3", 30),
    "broker halted": halted("kafka", 20),
    "catalog halted": halted("postgres", 20),
    "store halted": halted("s3", 20),
    "TaskManager halted": halted(TASK_MANAGER, 8),
    "JobManager halted": halted(JOB_MANAGER, 8),
}


def in_turns(chance: random.Random) -> list[str]:
    """The names of all faults in a new order, so that a run of some minutes has each of them."""
    names = list(FAULTS)
    chance.shuffle(names)
    return names
