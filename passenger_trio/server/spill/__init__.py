"""Bytes that wait for a slow client or application: in memory, and beyond a limit on disk."""
