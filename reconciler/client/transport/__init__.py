"""HTTP/1.1 connections: pool, TLS, proxies."""
