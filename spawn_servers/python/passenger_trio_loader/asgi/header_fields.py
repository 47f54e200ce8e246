"""Header fields from the application: encoded as pairs, or a precise error."""

from http import HTTPStatus

from passenger_trio_loader.session_frames import MAX_HEAD

REASONS = {int(status): status.phrase.encode() for status in HTTPStatus}


def encoded_fields(headers):
    """(the fields as pairs, their content-length or None).

    :raises TypeError: :raises ValueError: a field that cannot be sent.
    """
    parts = []
    length = None
    try:
        for name, value in headers:
            parts += (name, value)
            # The supervisor judges a length that is no number.
            if len(name) == 14 and name.lower() == b"content-length":
                length = int(value) if value.isdigit() and len(value) < 19 else None
        parts.append(b"")
        data = b"\0".join(parts)
    except Exception:
        raise bad_field(headers) from None
    if data.count(b"\0") != len(parts) - 1 or b"" in parts[0:-1:2] or len(data) > MAX_HEAD - 1000:
        raise bad_field(headers)
    return data, length


def bad_field(headers):
    """The error that says what is wrong with header fields that could not be encoded."""
    try:
        headers = list(headers)
    except TypeError:
        return TypeError("the headers must be a list of names and values, not %s" % type(headers).__name__)
    for header in headers:
        try:
            name, value = header
        except (TypeError, ValueError):
            return TypeError("a header must be a name and a value, not %r" % (header,))
        for text in (name, value):
            if not isinstance(text, (bytes, bytearray, memoryview)):
                return TypeError("the header %r: a name or value must be bytes, not %s" % (name, type(text).__name__))
            if b"\0" in bytes(text):
                return ValueError("the header %r has a byte that HTTP cannot carry" % (name,))
        if not name:
            return ValueError("a header has an empty name")
    return ValueError("the head is longer than %d bytes" % MAX_HEAD)
