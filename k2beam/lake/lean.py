"""pyiceberg's commits at a cost that does not depend on how many snapshots and commits there were, and its plans.

What pyiceberg 0.12 does at each commit grows with the history: it copies the metadata some fifteen times (each question
to a transaction applies all its updates anew), parses it twice, and lists one manifest for each commit that ever was.
Here its parts are shared (they are frozen models), the updates are applied once, a metadata file is parsed once (none
is ever written twice), and manifests are merged as they gather.

A plan evaluates what is left of its filter for each file, which nobody here asks, and the partitions of each anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.expressions.visitors import ResidualEvaluator, UnpartitionedResidualEvaluator
from pyiceberg.manifest import DataFile, ManifestContent, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table import CommitTableResponse, ManifestGroupPlanner, Table, Transaction
from pyiceberg.table.metadata import TableMetadata, TableMetadataV1, TableMetadataV2, TableMetadataV3
from pyiceberg.table.snapshots import Operation, Summary
from pyiceberg.table.update import RemoveSnapshotsUpdate, TableRequirement, TableUpdate
from pyiceberg.table.update.snapshot import _FastAppendFiles, _ManifestMergeManager, _OverwriteFiles
from pyiceberg.typedef import EMPTY_DICT, Identifier

MERGED_AT_ONCE = 10
"""So many manifests of about one size become one."""

LARGEST_MERGED = 3
"""Manifests are merged whose number of files has up to so many digits; a larger one stays as it is."""


def _shallow(metadata: TableMetadata, memo: object = None) -> TableMetadata:
    """What a deep copy gives of a model that nobody changes: each update of it makes another."""
    del memo
    return metadata.model_copy()


# pyiceberg copies the whole metadata deeply each time that it has applied some updates to it.
for _frozen in (TableMetadataV1, TableMetadataV2, TableMetadataV3):
    _frozen.__deepcopy__ = _shallow  # type: ignore[method-assign,assignment]


class LeanTransaction(Transaction):
    """A transaction that applies its updates to the metadata once, and not at each question about it."""

    _applied: tuple[tuple[TableUpdate, ...], TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """The metadata with the updates so far."""
        if self._applied is None or self._applied[0] is not self._updates:
            self._applied = self._updates, super().table_metadata
        return self._applied[1]


class MergingAppend(_FastAppendFiles):
    """A fast append that merges manifests of one size class, as a log-structured merge tree does its runs."""

    def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        return merge_manifests(manifests, self)


class MergingOverwrite(_OverwriteFiles):
    """A snapshot that puts files in the place of others; merges manifests likewise."""

    def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        return merge_manifests(manifests, self)


class MergingReplace(MergingOverwrite):
    """The same where no row is changed by it."""

    def _summary(self, snapshot_properties: dict[str, str] = EMPTY_DICT) -> Summary:
        # pyiceberg refuses to sum a replace up. Its counts are those of an overwrite.
        counted = super()._summary(snapshot_properties)
        return Summary(Operation.REPLACE, **counted.additional_properties)


def merge_manifests(manifests: Sequence[ManifestFile], producer: Any) -> list[ManifestFile]:
    """Merge manifests where :data:`MERGED_AT_ONCE` of one partition spec have about the same number of files.

    About the same: as many digits. So a file's entry is written anew once for each digit, and a table of any number
    of files has some thirty manifests more than one for each thousand. What this commit adds waits for the next, so
    that no manifest is written for nothing. An older one that only says what was deleted is of no use any more.
    """
    alike: dict[tuple[int, int], list[ManifestFile]] = defaultdict(list)
    merged = []
    for manifest in manifests:
        is_older = manifest.added_snapshot_id != producer.snapshot_id
        if is_older and manifest.added_files_count == 0 == manifest.existing_files_count:
            continue
        merged.append(manifest)
        digits = len(str(_files(manifest)))
        if is_older and manifest.content == ManifestContent.DATA and digits <= LARGEST_MERGED:
            alike[manifest.partition_spec_id, digits].append(manifest)
    manager = _ManifestMergeManager(0, 0, True, producer)
    for (spec, _), group in alike.items():
        if len(group) >= MERGED_AT_ONCE:
            merged = [manager._create_manifest(spec, group), *(one for one in merged if one not in group)]
    return merged


def _files(manifest: ManifestFile) -> int:
    return (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)


class LeanPlanner(ManifestGroupPlanner):
    """Plans the files of a filter: residuals are left out, and each partition is looked at once."""

    def _build_partition_evaluator(self, spec_id: int) -> Callable[[DataFile], bool]:
        evaluate = super()._build_partition_evaluator(spec_id)
        known: dict[tuple[Any, ...], bool] = {}

        def evaluated(file: DataFile) -> bool:
            partition = tuple(file.partition[place] for place in range(len(file.partition)))
            if partition not in known:
                known[partition] = evaluate(file)
            return known[partition]

        return evaluated

    def _build_residual_evaluator(self, spec_id: int) -> Callable[[DataFile], ResidualEvaluator]:
        del spec_id
        return lambda _: _NO_RESIDUAL


_NO_RESIDUAL = UnpartitionedResidualEvaluator(Schema(), AlwaysTrue())


class LeanSqlCatalog(SqlCatalog):
    """An SQL catalog that remembers the metadata that it read last of each table, by its location."""

    def __init__(self, name: str, **properties: str) -> None:
        super().__init__(name, **properties)
        self._parsed: dict[tuple[str, str], tuple[str, TableMetadata]] = {}

    def _convert_orm_to_iceberg(self, orm_table: IcebergTables) -> Table:
        name = orm_table.table_namespace, orm_table.table_name
        location, metadata = self._parsed.get(name, (None, None))
        if metadata is not None and location is not None and location == orm_table.metadata_location:
            io = self._load_file_io(metadata.properties, location)
            # A file that somebody deleted is missed as without the memory.
            if io.new_input(location).exists():
                return Table((*self.identifier_to_tuple(name[0]), name[1]), metadata, location, io, self)
        table = super()._convert_orm_to_iceberg(orm_table)
        self._parsed[name] = table.metadata_location, table.metadata
        return table

    def create_table(self, identifier: str | Identifier, *args: Any, **kwargs: Any) -> Table:
        """Create as SqlCatalog does; where another process was first, what was written for this table is deleted.

        A metadata file that no table has would pass for one of another warehouse later.
        """
        staged = self._create_staged_table(identifier, *args, **kwargs)
        self._write_metadata(staged.metadata, staged.io, staged.metadata_location)
        try:
            return self.register_table(identifier, staged.metadata_location)
        except TableAlreadyExistsError:
            staged.io.delete(staged.metadata_location)
            raise

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Commit as SqlCatalog does, and remember the metadata that became the table's.

        Raises CommitFailedException also where another one has expired a snapshot that was to be expired.
        """
        try:
            response = super().commit_table(table, requirements, updates)
        except ValueError as error:
            if any(isinstance(update, RemoveSnapshotsUpdate) for update in updates):
                raise CommitFailedException(f"{error}"[:200]) from error
            raise
        name = self.namespace_to_string(self.namespace_from(table.name())), self.table_name_from(table.name())
        self._parsed[name] = response.metadata_location, response.metadata
        return response


def lean(catalog: Catalog) -> Catalog:
    """The catalog, as a :class:`LeanSqlCatalog` where it is pyiceberg's own SQL catalog.

    Unless its configuration says otherwise a connection is tried before it is used: the database may have restarted.
    """
    if type(catalog) is not SqlCatalog:
        return catalog
    catalog.close()
    return LeanSqlCatalog(catalog.name, **{"pool_pre_ping": "true", **catalog.properties})
