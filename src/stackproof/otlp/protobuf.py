"""Protobuf's wire format, as much of it as Prometheus' two messages take."""

from __future__ import annotations

import struct
from collections.abc import Mapping


def varint(number: int) -> bytes:
    """Encode a number that is not negative."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def field(number: int, value: bytes | str | float) -> bytes:
    """Encode one field: a varint (wire type 0), a double (1), or bytes (2)."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    encoded = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(encoded)) + encoded


def pairs(labels: Mapping[str, str]) -> bytes:
    """Encode labels as fields 1 of name (1) and value (2): by name, as Prometheus demands."""
    return b"".join(field(1, field(1, name) + field(2, labels[name])) for name in sorted(labels))
