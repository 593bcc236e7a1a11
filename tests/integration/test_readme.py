"""README.md, docs/start.md and docs/production.md as a new user follows them, every command as printed.

From a clone in an empty folder. Two things differ from what a user types: servers and worker pools get ports that are
free, since another run may use the usual ones, and LEFT_OUT is left out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from k2beam.cache import cache_dir
from k2beam.stack.server import free_ports
from k2beam.stack.stack import SERVICES, LocalStack
from tests.documents import blocks, missing, read

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("prism")]

LEFT_OUT = ("./run_local.sh test",)
"""It would run this test again."""

STARTED = re.compile(r"^k2beam stack up (.*)$", re.MULTILINE)
WORKERS = ("50000", "50001")
"""Ports of a worker pool, which is no server of the stack."""
FETCHED = {"bin", "maven", "pip", "unpacked"}
"""Folders of the cache, with others, for what is downloaded or built. The state of servers is none of it."""

LIMIT_S = 1_500
MARK = "-- the output of block"


def copy_checkout(repository: Path, folder: Path) -> None:
    """What a clone would have, with what is not committed yet."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\0"):
        if name and (repository / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / name, folder / name)


def keep_free_ports(state: Path, servers: Sequence[str]) -> dict[str, str]:
    """Choose the ports that the servers of a state folder will have; by the number of the usual one."""
    usual = {(name, purpose): port for name in servers for purpose, port in SERVICES[name].default_ports.items()}
    others = {("pool", number): int(number) for number in WORKERS}
    free = dict(zip(usual | others, free_ports(tuple(map("/".join, usual | others))).values(), strict=True))
    for name in servers:
        (state / name).mkdir(parents=True)
        kept = {purpose: port for (server, purpose), port in free.items() if server == name}
        (state / name / "ports.json").write_text(json.dumps(kept), encoding="utf-8")
    return {str((usual | others)[key]): str(port) for key, port in free.items()}


def servers_of(text: str) -> list[str]:
    """The servers that a document starts."""
    return sorted({name for names in STARTED.findall(text) for name in names.split()})


def typed(body: str, ports: dict[str, str]) -> str:
    """A block as it is typed here: without what is left out, on free ports."""
    kept = [line for line in body.splitlines() if not line.startswith(LEFT_OUT)]
    text = STARTED.sub(r"\g<0> --free-ports", "\n".join(kept))
    return re.sub(r"localhost:(\d+)", lambda found: f"localhost:{ports[found.group(1)]}", text)


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A clone in an empty folder, whose environment is ready."""
    folder = tmp_path / "empty" / "k2beam"
    copy_checkout(repository, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """A cache with all that was fetched before, and with a stack of its own, which is ended."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for name in FETCHED:
        (cache_dir() / name).mkdir(parents=True, exist_ok=True)
    for path in cache_dir().iterdir():
        if path.name != "stack":
            (folder / path.name).symlink_to(path)
    yield folder
    LocalStack(folder / "stack", ()).down()


def run(script: str, checkout: Path, cache: Path) -> str:
    """Run a script in one shell until a command fails; what it printed, standard error included."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("K2BEAM_")}
    own = {
        "HOME": str(checkout.parent),
        "K2BEAM_CACHE": str(cache),
        "K2BEAM_VENV": sys.prefix,
        "PYTHONPATH": str(checkout),
    }
    shell = subprocess.Popen(
        ["bash", "-c", f"set -eE -o pipefail; trap 'echo FAILED: $BASH_COMMAND' ERR\n{script}"],
        cwd=checkout,
        env=kept | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = shell.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        raise
    assert shell.returncode == 0, printed[-8000:]
    return printed


@pytest.mark.parametrize("document", ["README.md", "docs/start.md", "docs/production.md"])
def test_a_new_user_can_type_every_command_and_sees_what_is_shown(document: str, checkout: Path, cache: Path) -> None:
    found = blocks(document)
    ports = keep_free_ports(cache / "stack", servers_of(read(document)))
    script = [
        f'echo "{MARK} {number}"\n{typed(body, ports)}' for number, (name, body) in enumerate(found) if name == "sh"
    ]
    assert len(script) >= 2
    outputs: dict[int, str] = {}
    for part in run("\n".join(script), checkout, cache).split(f"{MARK} ")[1:]:
        number, _, output = part.partition("\n")
        outputs[int(number)] = output
    assert len(outputs) == len(script)
    shown = [(number, body) for number, (name, body) in enumerate(found) if name == "text" and number - 1 in outputs]
    assert shown
    assert [line for number, body in shown for line in missing(body, outputs[number - 1])] == []
    assert {status.state for status in LocalStack(cache / "stack", ()).status()} <= {"stopped"}


def test_what_was_not_printed_is_found() -> None:
    printed = (
        'some log\n{\n  "a": 1,\n  "b": {"c": 2},\n  "d": 3\n}\nAdded 5 rows in 3.0 s (1 a second).\none two three\n'
    )
    good = '{\n  "a": 1,\n  "b": {"c": 2},\n  …\n}\nAdded 5 rows in 7.0 s (9 a second).\n== a command\none three\n…\n'
    assert missing(good, printed) == []
    assert missing(good.replace('"c": 2', '"c": 9').replace("three", "four"), printed) == ["b", "one four"]


def test_a_command_is_typed_as_printed_but_for_ports_and_what_is_left_out() -> None:
    started = "k2beam stack up kafka registry"
    body = f"./run_local.sh\n./run_local.sh test   # tests\n{started}\nk2beam audit --bootstrap localhost:9092\n"
    assert servers_of(body) == ["kafka", "registry"]
    assert typed(body, {"9092": "20001"}).splitlines() == [
        "./run_local.sh",
        f"{started} --free-ports",
        "k2beam audit --bootstrap localhost:20001",
    ]
