"""One reconcile: workers, the cycle, outcomes, finalizers, threads."""
