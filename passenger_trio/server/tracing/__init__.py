"""Traces of requests: positions in them for applications, and spans of ours (OB4)."""
