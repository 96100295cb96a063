"""Says why a broker cannot be reached in the words of the configuration, so that it is clear what to change.

The same cause gives the same text each time, whatever the network makes of it: a change of the text is logged. So a
TLS alert that the broker may have sent is not repeated; it is mostly lost, because the device has begun to speak
when the broker, which looks at the client's certificate last, hangs up.
"""

import ssl

_EXPIRED, _NOT_YET = 10, 9
_WRONG_NAME, _WRONG_ADDRESS = 62, 64
"""What OpenSSL found wrong. Source: X509_V_ERR_* of openssl/x509_vfy.h."""


def why_no_connection(error: Exception, *, tls: bool, websocket_path: str) -> str:
    """Explain what was raised while the connection was made; `websocket_path` is empty without WebSockets."""
    if isinstance(error, ssl.SSLCertVerificationError):
        found = error.verify_message.rstrip(".")
        return f"the broker's certificate is not accepted: {found}{_advice(error.verify_code)}"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, TimeoutError):
        return "nothing answers there in time"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if tls and isinstance(error, ssl.SSLError | ConnectionResetError | BrokenPipeError):
        return "no encrypted connection could be made: does the broker speak TLS at this mqtt.port?"
    if websocket_path and isinstance(error, ValueError | ConnectionError):
        return f'no WebSocket at mqtt.websocket_path = "{websocket_path}": does the broker have one at this mqtt.port?'
    return reason


def why_no_answer(*, tls: bool, has_certificate: bool, websocket_path: str) -> str:
    """Explain a connection that the broker ended before it answered at all."""
    if has_certificate:
        question = "does it know who issued mqtt.certificate_file, and is that still valid?"
    elif tls:
        question = (
            "does it want a certificate of this device (mqtt.certificate_file) or another mqtt.transport?"
        )
    elif websocket_path:
        question = "is mqtt.protocol right?"
    else:
        question = "does it want TLS (mqtt.tls), another mqtt.transport or mqtt.protocol?"
    return f"the broker ended the connection without an answer: {question}"


def why_refused(reason: str, protocol: str) -> str:
    """Explain the reason that a broker gives for not letting the device in."""
    text = reason.lower()
    if "protocol version" in text:
        other = "3.1.1" if protocol == "5" else "5"
        return f'refused: {reason}; mqtt.protocol = "{protocol}": try "{other}"'
    if "authori" in text or "user name" in text:
        return f"refused: {reason}; are mqtt.username and mqtt.password_file right?"
    return f"refused: {reason}"


def _advice(code: int) -> str:
    if code in {_EXPIRED, _NOT_YET}:
        return "; is this device's clock right?"
    if code in {_WRONG_NAME, _WRONG_ADDRESS}:
        return "; mqtt.host and mqtt.alternates must be what it is made out to (mqtt.check_hostname)"
    return "; mqtt.ca_file must hold the authority that signed it"
