"""What a batcher records: mutations, paths, fields."""
