"""CSV files of vendors as v2 events: a mapping says how, everything else is the same for all.

``mapping`` reads and checks mappings, ``lines`` takes lines apart, ``numbers`` and ``times`` turn text into
values, ``convert`` puts events together, ``encode`` writes them as Avro, ``files`` finds and splits files, ``reader``
reads a part of one, ``deliver`` hands events to an archive or a topic.
"""
