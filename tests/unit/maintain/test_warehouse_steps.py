"""Warehouse operations that are killed at every single step: what is found then, and what a repetition makes of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k2beam.errors import UsageError
from k2beam.lake.catalog import open_catalog
from k2beam.maintain import warehouse
from k2beam.maintain.warehouse import back_up, copy_warehouse, file_problems, move_warehouse
from tests.lake_helpers import lake_config, offsets_in
from tests.warehouse_helpers import COPIES, Operation, assert_holds, committed, copied, done, everything, made, silent


class Killed(BaseException):
    """Ends an operation where it stands, as a kill does: nothing handles it."""


def killing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Ends the operation at its step of that number, from 0: before and after each file and the catalog get there."""
    steps = itertools.count()

    def killed(call: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **options: object) -> object:
            for moment in (lambda: None, lambda: call(*args, **options)):
                found = moment()
                if next(steps) == number:
                    raise Killed
            return found

        return step

    monkeypatch.setattr(Path, "replace", killed(Path.replace))
    monkeypatch.setattr(warehouse, "_mark", killed(warehouse._mark))
    monkeypatch.setattr(warehouse, "replace_content", killed(warehouse.replace_content))
    monkeypatch.setattr(Path, "rename", killed(Path.rename))


def killed_at_every_step(
    tmp_path: Path, operation: Operation, prepare: Callable[[Path], tuple[Path, Path]]
) -> Iterator[tuple[Path, Path]]:
    """Gives the two folders after a kill, for every moment at which one can be; then completes, and checks."""
    for number in itertools.count():
        old, new = prepare(tmp_path / str(number))
        before = everything(old)
        with pytest.MonkeyPatch.context() as patch:
            killing(patch, number)
            try:
                operation(old, new, silent)
            except Killed:
                pass
            else:
                assert number >= 10, "there was something to kill"
                return
        assert not old.exists() or everything(old) == before
        yield old, new
        done(operation, old, new)
        assert_holds(new, 2)


@pytest.mark.parametrize("operation", COPIES)
def test_a_copy_that_is_killed_at_any_moment_is_refused_until_it_is_repeated(
    tmp_path: Path, operation: Operation
) -> None:
    template = made(tmp_path / "template" / "old")
    for old, new in killed_at_every_step(
        tmp_path, operation, lambda folder: (moved_copy(template, folder / "old"), folder / "new")
    ):
        assert old.exists()
        with pytest.raises(UsageError, match=r"no warehouse at|run it again: k2beam warehouse (copy|backup|restore)"):
            open_catalog(lake_config(new), create=False)


def test_a_completed_copy_that_is_killed_at_any_moment_is_refused_until_it_is_repeated(tmp_path: Path) -> None:
    template = made(tmp_path / "template" / "old")

    def prepare(folder: Path) -> tuple[Path, Path]:
        old = moved_copy(template, folder / "old")
        return old, copied(old, folder / "new")

    for old, new in killed_at_every_step(tmp_path, copy_warehouse, prepare):
        assert old.exists()
        with pytest.raises(UsageError, match="k2beam warehouse copy"):
            open_catalog(lake_config(new))


def test_a_move_that_is_killed_at_any_moment_leaves_one_whole_warehouse_or_is_completed(tmp_path: Path) -> None:
    template = made(tmp_path / "template" / "old")
    undone = 0
    for old, new in killed_at_every_step(
        tmp_path, move_warehouse, lambda folder: (moved_copy(template, folder / "old"), folder / "new")
    ):
        assert old.exists() != new.exists()
        if old.exists():
            continue
        try:
            open_catalog(lake_config(new))
        except UsageError as refused:
            assert "k2beam warehouse move" in str(refused)  # noqa: PT017 - which of both depends on the moment
            new.rename(old)  # undone by hand, at any moment before the catalog was changed
            assert_holds(old, 2)
            undone += 1
        else:
            assert_holds(new, 2)
    assert undone > 5


def test_a_backup_that_is_killed_at_any_moment_is_the_earlier_one_or_the_later_one(tmp_path: Path) -> None:
    template = made(tmp_path / "template" / "old", 1)

    def prepare(folder: Path) -> tuple[Path, Path]:
        old = moved_copy(template, folder / "old")
        done(back_up, old, folder / "new")
        committed(old, range(10, 20))
        return old, folder / "new"

    found = set()
    for _, new in killed_at_every_step(tmp_path, back_up, prepare):
        assert file_problems(new, silent) == []
        found.add(len(offsets_in(new)))
    assert found == {10, 20}


def moved_copy(template: Path, folder: Path) -> Path:
    """A warehouse like the template, at its own place: quicker than to make one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    done(copy_warehouse, template, folder)
    return folder
