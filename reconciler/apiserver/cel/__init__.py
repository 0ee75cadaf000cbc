"""CEL validation rules: compilation, cost estimates, evaluation, the Kubernetes libraries."""
