"""The write at the end of a batch: a sans-I/O core, conflict replay, drivers."""
