"""Whether a file is the one that was taken before under the same source: the digest of its lines says.

A source is told by a file's first line, so that a file may grow. Files that begin alike and differ later, or that were
issued again with corrections, would be taken for one: the lines of the second would pass for covered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from k2beam.csv.files import CsvFile
from k2beam.csv.streams import open_csv
from k2beam.errors import LakeError, UsageError

_PIECE = 1 << 20
_CORRECTED = "~"
"""What stands before the number of times that a source was corrected."""


class Beginning(NamedTuple):
    """The lines of a file that were there when it was taken: how many, and SHA-256 over them; and its path then.

    ``replaced``: the sources, from the first on, whose rows went when it was taken in their place.
    """

    lines: int
    digest: str
    path: str
    replaced: tuple[str, ...] = ()

    @staticmethod
    def from_json(text: str) -> Beginning:
        """What :meth:`to_json` gave. Raises LakeError for another text."""
        try:
            known = json.loads(text)
            return Beginning(**{**known, "replaced": tuple(known.get("replaced", ()))})
        except (ValueError, TypeError, AttributeError) as error:
            raise LakeError(f"what is kept of the beginning of a file is damaged: {text!r:.200}") from error

    def to_json(self) -> str:
        return json.dumps(self._asdict(), sort_keys=True)

    def source(self, told: str) -> str:
        """The source of its rows, where the file's first line tells ``told``: a corrected file has one of its own."""
        times = sum(one.partition(_CORRECTED)[0] == told for one in self.replaced)
        return f"{told}{_CORRECTED}{times}" if times else told


def taken_as(file: CsvFile, known: Mapping[str, Beginning], *, complete: bool, correct: bool) -> Beginning:
    """The lines of a file as they are now, and what they take the place of, by what is ``known`` of each source.

    Where it is ``correct`` that differs from what was taken, the file takes its place: of the source that its first
    line tells, or else of the one that was taken from the same path. Raises UsageError, naming both files, where it
    differs otherwise, and where there is nothing to correct.
    """
    told, path = known.get(file.source), str(Path(file.path).resolve())
    before = file.source if told else next((one for one, its in known.items() if correct and its.path == path), None)
    now, same = _compared(file, told, complete)
    now = now._replace(path=path)
    if same:
        return now._replace(replaced=told.replaced if told else ())
    if before is None:
        if correct:
            raise UsageError(
                f"{file.path}: nothing to replace: no file that begins with its first line, or had its path, was taken"
            )
        return now
    of_before = known[before]
    if correct:
        return now._replace(replaced=(*of_before.replaced, of_before.source(before)))
    what = f"has {now.lines:,} lines" if now.lines < of_before.lines else "differs after its first line"
    raise UsageError(
        f"{file.path} begins as {of_before.path} did, of which {of_before.lines:,} lines were taken, and {what}: its "
        "lines would pass for those. If it was corrected, --replace takes it in the place of those rows; if it is "
        "another file, tell the two apart by a group in the mapping's `file` pattern"
    )


def _compared(file: CsvFile, known: Beginning | None, complete: bool) -> tuple[Beginning, bool]:
    """The lines as they are now, and whether those that are ``known`` are the first of them."""
    sha, lines, of_known, rest = hashlib.sha256(), 0, "", b""
    with open_csv(file.path) as stream:
        stream.seek(file.start)
        while piece := stream.read(_PIECE):
            *whole, rest = (rest + piece).split(b"\n")
            cut = known.lines - lines if known is not None and lines <= known.lines <= lines + len(whole) else 0
            for part in (whole[:cut], whole[cut:]):
                sha.update(b"".join(line + b"\n" for line in part))
                lines += len(part)
                of_known = sha.hexdigest() if known is not None and lines == known.lines else of_known
    if complete and rest:
        sha.update(rest + b"\n")
        lines += 1
        of_known = sha.hexdigest() if known is not None and lines == known.lines else of_known
    return Beginning(lines, sha.hexdigest(), file.path), known is not None and of_known == known.digest
