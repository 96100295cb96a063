"""Reads from a certificate what the standard library does not tell of one's own: until when it is valid."""

import re
import ssl
from datetime import UTC, datetime

_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17
_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def valid_until(pem: str) -> datetime | None:
    """Give the end of the first certificate's validity, UTC; None if `pem` holds no certificate.

    Source: RFC 5280 section 4.1 (the order of the fields) and 4.1.2.5 (the two forms of a time).
    """
    block = _BLOCK.search(pem)
    if block is None:
        return None
    try:
        certificate = _inside(ssl.PEM_cert_to_DER_cert(block.group()), _SEQUENCE)
        signed = _inside(certificate, _SEQUENCE)
        if signed[:1] == bytes([_VERSION]):
            signed = _split(signed)[2]
        for _ in ("serial number", "signature algorithm", "issuer"):
            signed = _split(signed)[2]
        _, _, rest = _split(_inside(signed, _SEQUENCE))
        tag, end, _ = _split(rest)
        text = end.decode("ascii")
        if tag == _UTC_TIME:
            # Two digits for the year: 50..99 are of the last century.
            text = ("19" if text[:2] >= "50" else "20") + text
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except (ValueError, IndexError):
        return None


def _split(der: bytes) -> tuple[int, bytes, bytes]:
    """Give the first element's tag and content, and what follows it."""
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    if start + length > len(der):
        raise ValueError("the certificate is cut off")
    return der[0], der[start : start + length], der[start + length :]


def _inside(der: bytes, tag: int) -> bytes:
    found, content, _ = _split(der)
    if found != tag:
        raise ValueError(f"unexpected element {found:#x} in a certificate")
    return content
