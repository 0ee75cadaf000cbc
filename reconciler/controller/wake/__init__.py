"""The triggers of a controller: watches, event handlers, sources, predicates, the echo rule."""
