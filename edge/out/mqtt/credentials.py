"""Where the brokers are and what opens the door to them: password, certificates, private key.

A secret is a file, never a setting: what stands in a configuration or on a command line is read by whoever sees
the backup or the process list. Where `mqtt.password_file` or `mqtt.key_file` holds a name without a slash it is
one of systemd's credentials (`LoadCredential=NAME:/path` in the unit), which the service alone can read; for a
file in the working directory write `./NAME`. Everything is read and checked once, before the first connection.
"""

import logging
import os
import shlex
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edge.config import Mqtt
from edge.errors import ConfigError
from edge.out.mqtt.certificate import valid_until

log = logging.getLogger(__name__)

SECRET_BYTES = 65_535
"""Largest file that is read as a secret; also the longest password that MQTT can carry (MQTT 5, section 1.5.6)."""
PUBLIC_BYTES = 4 << 20
"""Largest file of certificates that is read; all authorities of a Debian are 0.2 MB."""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where one broker listens. As text it is `host:port`, an IPv6 address in brackets."""

    host: str
    """Name or address, without brackets."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def where(config: Mqtt) -> list[BrokerAddress]:
    """Give the brokers in the order in which they are to be tried: `mqtt.host` first, each once."""
    brokers = [BrokerAddress(config.host.strip("[]"), config.port)]
    for alternate in config.alternates:
        host, port = alternate, ""
        # What follows the last colon is a port unless that colon is inside of brackets.
        if ":" in alternate.rpartition("]")[2]:
            host, _, port = alternate.rpartition(":")
        brokers.append(BrokerAddress(host.strip("[]"), int(port) if port else config.port))
    return list(dict.fromkeys(brokers))


def password(config: Mqtt, environment: Mapping[str, str] = os.environ) -> str:
    """Give the first line of `mqtt.password_file`; empty if there is none.

    Raises:
        ConfigError: the file cannot be read, others may read it, or its first line is empty.
    """
    if not config.password_file:
        return ""
    setting = f'mqtt.password_file = "{config.password_file}"'
    content = _read_secret(_secret_path(setting, config.password_file, environment), setting)
    try:
        # Some editors put a byte order mark first, which no broker would take for part of the password.
        text = content.decode("utf-8-sig").partition("\n")[0].removesuffix("\r")
    except UnicodeDecodeError:
        # The error would repeat what it could not decode.
        raise ConfigError(f"{setting}: cannot be read: is not UTF-8 text") from None
    if not text:
        raise ConfigError(f"{setting}: its first line is empty")
    return text


def tls_context(config: Mqtt, environment: Mapping[str, str] = os.environ) -> ssl.SSLContext | None:
    """Give what TLS connections are made with; None without `mqtt.tls`.

    TLS 1.2 is the least. The broker's certificate is always checked against `mqtt.ca_file` or the system's
    authorities; `mqtt.check_hostname` decides only whether it must also bear the broker's name.

    Raises:
        ConfigError: naming the setting, if a file cannot be used or others may read the private key.
    """
    if not config.tls:
        return None
    # Not create_default_context: that one writes session keys to a file if SSLKEYLOGFILE asks for it.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = config.check_hostname
    if config.ca_file:
        _trust(context, config.ca_file)
    else:
        context.load_default_certs()
    if config.certificate_file:
        _identify(context, config, environment)
    return context


def secrets(config: Mqtt, environment: Mapping[str, str] = os.environ) -> tuple[str, ssl.SSLContext | None]:
    """Give what `password` and `tls_context` give.

    Raises:
        ConfigError: what is wrong with either, one line each.
    """
    mistakes, word, context = [], "", None
    try:
        word = password(config, environment)
    except ConfigError as error:
        mistakes.append(str(error))
    try:
        context = tls_context(config, environment)
    except ConfigError as error:
        mistakes.append(str(error))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return word, context


def problems(config: Mqtt, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Give what is wrong with the secrets and certificates, one line each."""
    try:
        secrets(config, environment)
    except ConfigError as error:
        return str(error).splitlines()
    return []


def _trust(context: ssl.SSLContext, ca_file: str) -> None:
    setting = f'mqtt.ca_file = "{ca_file}"'
    _read_public(Path(ca_file), setting)
    try:
        context.load_verify_locations(cafile=ca_file)
    except ssl.SSLError as error:
        raise ConfigError(f"{setting}: holds no certificate in PEM form") from error


def _identify(context: ssl.SSLContext, config: Mqtt, environment: Mapping[str, str]) -> None:
    """Load the certificate and the key that this device shows to the broker."""
    setting = f'mqtt.certificate_file = "{config.certificate_file}"'
    key_setting = f'mqtt.key_file = "{config.key_file}"'
    end = valid_until(_read_public(Path(config.certificate_file), setting).decode("latin-1"))
    if end is None:
        raise ConfigError(f"{setting}: holds no certificate in PEM form")
    if end < datetime.now(UTC):
        # Not an error: the clock of a computer without a battery may be wrong, and the broker has the last word.
        log.warning("%s: has expired on %s; the broker may refuse it", setting, f"{end:%Y-%m-%d}")
    key_path = _secret_path(key_setting, config.key_file, environment)
    _read_secret(key_path, key_setting)

    def refuse_to_ask() -> str:
        # Without this OpenSSL would ask at the terminal, and a service would wait for ever.
        command = f"openssl pkey -in {shlex.quote(str(key_path))} -out NEW"
        raise ConfigError(
            f"{key_setting}: is encrypted with a pass phrase, which a device cannot ask for: run {command}"
        )

    try:
        context.load_cert_chain(config.certificate_file, key_path, password=refuse_to_ask)
    except ssl.SSLError as error:
        # The second is what a key of another kind gets, such as RSA beside a certificate for EC.
        if error.reason in {"KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}:
            raise ConfigError(f"{key_setting}: does not belong to {setting}") from error
        if error.reason in {None, "NO_START_LINE", "BAD_BASE64_DECODE", "UNSUPPORTED"}:
            raise ConfigError(f"{key_setting}: holds no private key in PEM form") from error
        raise ConfigError(f"{setting}: cannot be used: {error.reason.lower().replace('_', ' ')}") from error


def _secret_path(setting: str, value: str, environment: Mapping[str, str]) -> Path:
    """Give where a secret lies: a name without a slash is a credential that systemd hands to the service."""
    if "/" in value:
        return Path(value)
    if folder := environment.get("CREDENTIALS_DIRECTORY"):
        return Path(folder) / value
    raise ConfigError(
        f"{setting}: names a systemd credential, but $CREDENTIALS_DIRECTORY is not set; "
        f"write ./{value} for a file, or LoadCredential={value}:/path in the unit"
    )


def _read_secret(path: Path, setting: str) -> bytes:
    content, status = _read(path, setting, SECRET_BYTES)
    name = shlex.quote(str(path))
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o027:
        # A group may read it: that is how root hands a file to a service's user.
        raise ConfigError(
            f"{setting}: {'others' if mode & 0o007 else 'its group'} may {_what_may_be_done(mode)} it "
            f"(mode {mode:04o}): run chmod {mode & 0o740 | 0o400:04o} {name}"
        )
    if status.st_uid not in {0, os.geteuid()}:
        raise ConfigError(
            f"{setting}: belongs to user {status.st_uid}, who could change it: run chown root {name}"
        )
    return content


def _what_may_be_done(mode: int) -> str:
    return "read" if mode & 0o004 else "change" if mode & 0o022 else "run"


def _read_public(path: Path, setting: str) -> bytes:
    content, status = _read(path, setting, PUBLIC_BYTES)
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o002:
        raise ConfigError(
            f"{setting}: others may change it (mode {mode:04o}): run chmod o-w {shlex.quote(str(path))}"
        )
    return content


def _read(path: Path, setting: str, limit_bytes: int) -> tuple[bytes, os.stat_result]:
    """Read a regular file whole; give it with the status that was true of what was read."""
    try:
        # Opening a pipe that nobody writes to would wait for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{setting}: is not a regular file")
            content = file.read(limit_bytes + 1)
    except OSError as error:
        raise ConfigError(f"{setting}: cannot be read: {error.strerror}") from error
    if len(content) > limit_bytes:
        raise ConfigError(f"{setting}: is larger than {limit_bytes} bytes, which is the most")
    return content, status
