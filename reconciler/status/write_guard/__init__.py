"""Detection of controllers that write a status more than once per reconcile."""
