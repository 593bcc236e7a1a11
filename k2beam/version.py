"""The version of the package, below everything else."""

RELEASE = "0.1.0"
