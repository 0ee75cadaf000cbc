"""What enqueues keys: watches, event handlers, sources, predicates, the echo rule."""
