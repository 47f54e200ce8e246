"""Traces of requests: positions in them for applications, and the server's own spans (OB4)."""
