"""One reconcile: worker, cycle, outcome, finalizer, threads."""
