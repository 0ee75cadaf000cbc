"""JSON, YAML, protobuf, Go's text forms and error responses, as kube-apiserver reads and writes them."""
