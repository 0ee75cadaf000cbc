"""The parts that only the library uses: JSON on the wire, redaction, the HTTP server, TLS, hooks, cancellation."""
