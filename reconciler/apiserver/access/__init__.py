"""Users, service account tokens, impersonation, and what roles allow."""
