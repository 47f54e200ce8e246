"""Responses of our own: refusals and error pages."""
