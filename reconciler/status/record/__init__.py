"""What a batcher records: mutations of a status, and the version that they are recorded on."""
