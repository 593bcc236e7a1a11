"""Avro object container files: found, checked, split, read, counted, written.

Local files only; :mod:`k2beam.archive.files` is the one place that opens them. Nothing here decodes
an event: a plain container becomes blocks (:class:`k2beam.model.BlockBatch`), a container in the
raw_record envelope becomes the messages that it keeps (:class:`k2beam.model.RawBatch`).
"""
