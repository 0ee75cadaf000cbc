"""`reconciler demo`: the retry timeline without a cluster."""
