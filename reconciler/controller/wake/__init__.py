"""What enqueues keys: sources, watches, predicates, the echo rule."""
