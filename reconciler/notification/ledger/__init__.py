"""Durable progress: what is read from the API server and recorded in the status around a delivery."""
