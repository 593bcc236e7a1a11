"""Packaging of k2beam; also what ships the code to Beam workers (``--setup_file``)."""

from pathlib import Path
from runpy import run_path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

setup(
    name="k2beam",
    version=run_path(str(ROOT / "k2beam" / "version.py"))["RELEASE"],
    description="Market data from Kafka or archives through Apache Beam into Apache Iceberg, exactly once",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.12",
    packages=[*find_packages(include=["k2beam*", "transforms*"]), "k2beam._schemas"],
    package_dir={"k2beam._schemas": "schemas"},
    package_data={
        "k2beam": ["py.typed", "stack/jars.lock"],
        "k2beam._schemas": ["*.avsc"],
        "k2beam.csv": ["mappings/*.toml"],
        "k2beam.report": ["page/*"],
        "k2beam.sequence": ["known.toml"],
    },
    include_package_data=False,
    # An editable install is a path: with a finder, the default, Python that runs beside a clone named k2beam takes the
    # clone's folder for a namespace package.
    options={"editable_wheel": {"mode": "compat"}},
    install_requires=[
        "apache-beam>=2.77,<2.78",
        "cramjam>=2.9",
        "fastavro>=1.13.1,<2",
        "numpy>=2",
        "prometheus-client>=0.21",
        "pyarrow>=18,<26",
        "pyiceberg[pyiceberg-core,sql-sqlite]>=0.12,<0.13",
        "pyroaring>=1.0.3",
        "rich>=13.9",
        "structlog>=24.4",
        "tenacity>=9",
        "typer>=0.15",
        "zstandard>=0.23",
    ],
    extras_require={
        "kafka": [
            "confluent-kafka[avro,schemaregistry]>=2.16,<3",
            "httpx2>=2.0",
            "tzdata>=2025.1",
            "websockets>=15",
        ],
        "query": ["duckdb>=1.4", "tzdata>=2025.1"],
        "pandas": ["pandas>=2.2"],
        "notebook": ["ipykernel>=6.29", "matplotlib>=3.9", "pandas>=2.2"],
        "postgres": ["psycopg2-binary>=2.9"],
        "test": [
            "axe-playwright-python>=0.1.4",
            "duckdb>=1.4",
            "hypothesis>=6.115",
            "ipykernel>=6.29",
            "matplotlib>=3.9",
            "nbclient>=0.10",
            "pandas>=2.2",
            "playwright>=1.50",
            "polars>=1.20",
            "promql-parser>=0.12",
            "psutil>=6",
            "psycopg2-binary>=2.9",
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "pyyaml>=6",
        ],
        "dev": [
            "build>=1.2",
            "mkdocs-material>=9.6,<10",
            "mkdocstrings[python]>=0.29",
            "mypy>=1.13",
            "pip-audit>=2.9",
            "pre-commit>=4",
            "ruff>=0.8",
            "uv>=0.9",
        ],
    },
    entry_points={"console_scripts": ["k2beam=k2beam.cli.main:main", "k2beam-boot=k2beam.job.boot:boot_main"]},
)
