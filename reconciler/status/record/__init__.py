"""The records of a batcher: mutations of a status, and the version that they are recorded on."""
