"""Opens the Iceberg catalog: the embedded one under a warehouse folder, or a configured one.

The embedded default needs no server: an SQLite catalog in ``DIR/catalog.db``, named ``k2beam``,
with the tables under ``DIR``. A named catalog is opened as pyiceberg is configured to (its
configuration file or ``PYICEBERG_CATALOG__…`` variables), so that no secret passes through here.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from pyiceberg.catalog import Catalog as Catalog  # noqa: PLC0414 - for the layers above
from pyiceberg.catalog import load_catalog
from sqlalchemy.exc import IntegrityError, OperationalError
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from k2beam.config import LakeConfig
from k2beam.errors import UsageError
from k2beam.lake.identity import same_catalog
from k2beam.lake.lean import LeanSqlCatalog, lean
from k2beam.lake.patience import own_error, patient, waiting
from k2beam.lake.place import CATALOG_FILE, check_place, check_there, warehouse_folder

SQLITE_BUSY_SECONDS = 60


def open_catalog(config: LakeConfig, *, create: bool = True) -> Catalog:
    """Open the catalog of ``config``; ``create`` makes the embedded warehouse where it's absent.

    Raises UsageError when the warehouse isn't there (and ``create`` is off), isn't a folder, can't be written
    or was copied or moved and not completed (:mod:`k2beam.lake.place`), when the named catalog isn't configured, and
    when it is not the one that ``config.identity`` is of (:mod:`k2beam.lake.identity`).
    """
    if config.identity is not None:
        return same_catalog(config, lambda: patient(waiting(_opened)(config, create=False)))
    try:
        return _opened(config, create=create)
    except Exception as error:
        own = own_error(error, f"{config.describe()}: ")
        if own is None:
            raise
        raise own from error


def _opened(config: LakeConfig, *, create: bool) -> Catalog:
    if config.warehouse is not None:
        return _embedded(warehouse_folder(config.warehouse), create=create)
    try:
        return lean(load_catalog(config.catalog))
    except ValueError as error:
        raise UsageError(
            f"catalog {config.catalog!r} is not configured ({error}); describe it in .pyiceberg.yaml "
            f"or in PYICEBERG_CATALOG__{str(config.catalog).upper()}__URI"
        ) from error


def _embedded(folder: Path, *, create: bool) -> Catalog:
    if not create:
        check_there(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the warehouse {folder} can't be made: {error.strerror}; name another --warehouse") from error
    check_place(folder)
    return _sqlite_catalog(folder / CATALOG_FILE)


@retry(
    # Two processes that open a new warehouse at once both make its tables, and one of them is told that they are there.
    retry=retry_if_exception_type((OperationalError, IntegrityError)),
    stop=stop_after_attempt(5),
    wait=wait_random_exponential(multiplier=0.05, max=1),
    reraise=True,
)
def _sqlite_catalog(database: Path) -> Catalog:
    return LeanSqlCatalog(
        "k2beam",
        uri=f"sqlite:///{quote(str(database))}?timeout={SQLITE_BUSY_SECONDS}",
        warehouse=str(database.parent),
        init_catalog_tables="true",
    )
