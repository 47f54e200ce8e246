"""Bytes that wait for a slow side: in memory, and past that on disk."""
