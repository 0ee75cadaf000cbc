"""The guard that finds controllers which write a status more than once per cycle."""
