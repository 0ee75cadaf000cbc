"""What only the library uses: JSON on the wire, the HTTP server, TLS, hooks, cancellation, field managers."""
