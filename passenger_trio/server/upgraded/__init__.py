"""Connections that stay open in another protocol: WebSockets, and relays of raw bytes."""
