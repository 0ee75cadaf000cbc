"""Status writers for the clients that a batcher accepts."""
