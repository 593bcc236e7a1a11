"""Whether a file is the one that was taken before under the same source: the digest of its lines says.

A source is told by a file's first line, so that a file may grow. Files that begin alike and differ later, or that were
issued again with corrections, would be taken for one: the lines of the second would pass for covered.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

from k2beam.csv.files import CsvFile
from k2beam.csv.streams import open_csv
from k2beam.errors import LakeError, UsageError

_PIECE = 1 << 20


class Beginning(NamedTuple):
    """The lines of a file that were there when it was taken: how many, and SHA-256 over them; and its path then."""

    lines: int
    digest: str
    path: str

    @staticmethod
    def from_json(text: str) -> Beginning:
        """What :meth:`to_json` gave. Raises LakeError for another text."""
        try:
            return Beginning(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise LakeError(f"what is kept of the beginning of a file is damaged: {text!r:.200}") from error

    def to_json(self) -> str:
        return json.dumps(self._asdict(), sort_keys=True)


def seen_beginning(file: CsvFile, known: Beginning | None, *, complete: bool = False) -> Beginning:
    """The lines of a file as they are now. Raises UsageError, naming both, where they are not those of ``known``."""
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
    if known is not None and of_known != known.digest:
        what = f"has {lines:,} lines" if lines < known.lines else "differs after its first line"
        raise UsageError(
            f"{file.path} begins as {known.path} did, of which {known.lines:,} lines were taken, and {what}: its lines "
            "would pass for those. If it is another file, tell the two apart by a group in the mapping's `file` "
            "pattern; if it was corrected, load it under a mapping with another `name`"
        )
    return Beginning(lines, sha.hexdigest(), file.path)
