"""The changes of objects that enqueued a key: which fields changed, and who wrote them."""
