"""Exceptions that end the usual path of a request without an error: the client has left, or the request is for the server itself."""

from __future__ import annotations

from passenger_trio.codecs.head import Head

__all__ = ["ClientGone", "HealthAsked"]


class HealthAsked(Exception):
    """A request is for the server's health (OB3): the server answers it itself."""

    def __init__(self, question: str, head: Head) -> None:
        super().__init__(question)
        self.question = question
        self.head = head


class ClientGone(Exception):
    """The client's connection broke: there is nobody to answer."""
