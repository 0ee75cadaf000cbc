"""Encodings and error responses, as kube-apiserver writes them."""
