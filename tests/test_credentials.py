"""Secrets come from files that nobody else can read or change; every mistake names the setting and the way out."""

import logging
import os
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest

from edge.config import Mqtt
from edge.errors import ConfigError
from edge.out.mqtt.certificate import valid_until
from edge.out.mqtt.credentials import SECRET_BYTES, BrokerAddress, password, tls_context, where

Keep = Callable[..., Path]


class Authority(Protocol):
    """What the fixture gives: see conftest."""

    folder: Path
    file: Path

    def issue(self, name: str, purpose: str = ..., *, days: int = ...) -> tuple[Path, Path]: ...


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    """Write a file with a mode."""

    def write(content: str | bytes, mode: int = 0o600, name: str = "secret") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    return write


def password_of(path: Path | str, **environment: str) -> str:
    return password(Mqtt(username="anna", password_file=str(path)), environment)


def context_of(environment: dict[str, str] | None = None, **settings: Any) -> ssl.SSLContext:
    files = {name: str(value) if name.endswith("_file") else value for name, value in settings.items()}
    context = tls_context(Mqtt(tls=True, **files), environment or {})
    assert context is not None
    return context


def test_the_brokers_come_in_the_order_of_the_configuration_and_each_once() -> None:
    config = Mqtt(
        host="::1", port=8883, alternates=("b", "c:1884", "[::2]", "[fe80::1%eth0]:1", "[::1]:8883")
    )
    assert where(config) == [
        BrokerAddress("::1", 8883), BrokerAddress("b", 8883), BrokerAddress("c", 1884),
        BrokerAddress("::2", 8883), BrokerAddress("fe80::1%eth0", 1),
    ]  # fmt: skip
    assert [str(broker) for broker in where(config)] == [
        "[::1]:8883", "b:8883", "c:1884", "[::2]:8883", "[fe80::1%eth0]:1"
    ]  # fmt: skip
    assert where(Mqtt(host="[::1]")) == [BrokerAddress("::1", 1883)]


@pytest.mark.parametrize(
    "content", ["hunter2", "hunter2\n", "hunter2\r\nmore\n", b"\xef\xbb\xbfhunter2\n"], ids=repr
)
def test_the_password_is_the_first_line_whatever_ends_it(content: str | bytes, keep: Keep) -> None:
    assert password_of(keep(content)) == "hunter2"


def test_spaces_belong_to_the_password(keep: Keep) -> None:
    assert password_of(keep(" hunter 2 \n")) == " hunter 2 "


def test_without_a_password_file_there_is_no_password() -> None:
    assert password(Mqtt()) == ""


@pytest.mark.parametrize(
    ("mode", "problem", "repaired"),
    [
        (0o644, "others may read", 0o640),
        (0o604, "others may read", 0o600),
        (0o602, "others may change", 0o600),
        (0o666, "others may read", 0o640),
        (0o620, "its group may change", 0o600),
        (0o660, "its group may change", 0o640),
        (0o601, "others may run", 0o600),
    ],
)
def test_a_secret_that_others_can_reach_is_refused_with_the_command_that_mends_it(
    mode: int, problem: str, repaired: int, keep: Keep
) -> None:
    path = keep("hunter2\n", mode)
    with pytest.raises(ConfigError) as caught:
        password_of(path)
    message = str(caught.value)
    assert message.startswith(f'mqtt.password_file = "{path}": {problem} it (mode {mode:04o})')
    assert "hunter2" not in message
    command = message.partition(": run ")[2]
    assert command.startswith("chmod ")
    subprocess.run(command, shell=True, check=True)
    assert path.stat().st_mode & 0o777 == repaired
    assert password_of(path) == "hunter2"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_the_owner_may_write_it_and_the_group_may_read_it(mode: int, keep: Keep) -> None:
    assert password_of(keep("hunter2\n", mode)) == "hunter2"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_secret_that_belongs_to_somebody_else_is_refused(keep: Keep) -> None:
    path = keep("hunter2\n")
    os.chown(path, 12345, 0)
    with pytest.raises(ConfigError, match=r"belongs to user 12345, who could change it: run chown root /"):
        password_of(path)


def test_a_name_without_a_slash_is_a_systemd_credential(keep: Keep) -> None:
    path = keep("hunter2\n", 0o400, "mqtt-password")
    assert password_of("mqtt-password", CREDENTIALS_DIRECTORY=str(path.parent)) == "hunter2"
    with pytest.raises(ConfigError) as caught:
        password_of("mqtt-password")
    for part in ("$CREDENTIALS_DIRECTORY", "LoadCredential=mqtt-password:", "./mqtt-password"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match=r'mqtt\.password_file = "other": cannot be read: No such file'):
        password_of("other", CREDENTIALS_DIRECTORY=str(path.parent))


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path, problem in (
        (tmp_path / "pipe", "is not a regular file"),
        (Path("/dev/zero"), "is not a regular file"),
        (tmp_path, "cannot be read: Is a directory|is not a regular file"),
        (tmp_path / "absent", "cannot be read: No such file or directory"),
    ):
        with pytest.raises(ConfigError, match=problem) as caught:
            password_of(path)
        assert str(caught.value).startswith(f'mqtt.password_file = "{path}": ')


def test_an_unusable_password_is_told_without_repeating_it(keep: Keep) -> None:
    for content, problem in (
        ("", "its first line is empty"),
        ("\nhunter2\n", "its first line is empty"),
        (b"hunter2\xff\n", "is not UTF-8 text"),
        ("x" * (SECRET_BYTES + 1), f"is larger than {SECRET_BYTES} bytes"),
    ):
        with pytest.raises(ConfigError, match=problem) as caught:
            password_of(keep(content))
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None
    assert password_of(keep("x" * SECRET_BYTES)) == "x" * SECRET_BYTES


def test_without_tls_no_certificate_is_looked_at() -> None:
    assert tls_context(Mqtt(ca_file="/absent")) is None


def test_old_protocol_versions_and_unchecked_certificates_are_never_used(authority: Authority) -> None:
    for context in (context_of(), context_of(ca_file=authority.file), context_of(check_hostname=False)):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.verify_mode == ssl.CERT_REQUIRED
    assert context_of().check_hostname
    assert not context_of(check_hostname=False).check_hostname


def test_session_keys_are_not_written_down_for_whoever_set_an_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    context_of()
    assert not (tmp_path / "keys").exists()


def test_a_file_of_authorities_without_a_certificate_is_refused(keep: Keep, tmp_path: Path) -> None:
    for content in ("", "hello\n", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(ConfigError, match=r"mqtt\.ca_file = .*: holds no certificate in PEM form"):
            context_of(ca_file=keep(content))
    with pytest.raises(ConfigError, match=r"mqtt\.ca_file = .*: cannot be read: No such file"):
        context_of(ca_file=tmp_path / "absent")


def test_whom_to_trust_must_not_be_for_others_to_decide(authority: Authority, keep: Keep) -> None:
    path = keep(authority.file.read_bytes(), 0o646, "authority.pem")
    with pytest.raises(
        ConfigError, match=r"mqtt\.ca_file = .*others may change it \(mode 0646\): run chmod o-w"
    ):
        context_of(ca_file=path)


def test_a_certificate_and_its_key_are_loaded_from_files_or_a_credential(
    authority: Authority, keep: Keep
) -> None:
    certificate, key = authority.issue("lab-03")
    context_of(certificate_file=certificate, key_file=key)
    path = keep(key.read_bytes(), 0o400, "mqtt-key")
    folder = {"CREDENTIALS_DIRECTORY": str(path.parent)}
    context_of(folder, certificate_file=certificate, key_file="mqtt-key")


def test_a_key_that_others_can_reach_is_refused(authority: Authority, keep: Keep) -> None:
    certificate, key = authority.issue("lab-03")
    exposed = keep(key.read_bytes(), 0o644, "key.pem")
    with pytest.raises(ConfigError) as caught:
        context_of(certificate_file=certificate, key_file=exposed)
    assert str(caught.value) == (
        f'mqtt.key_file = "{exposed}": others may read it (mode 0644): run chmod 0640 {exposed}'
    )


def test_a_key_that_does_not_belong_to_the_certificate_is_refused(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, _ = authority.issue("lab-03")
    _, other = authority.issue("lab-04")
    another_kind = tmp_path / "rsa.pem"
    subprocess.run(["openssl", "genrsa", "-out", another_kind, "2048"], check=True, capture_output=True)
    for key in (other, another_kind):
        with pytest.raises(ConfigError) as caught:
            context_of(certificate_file=certificate, key_file=key)
        assert (
            str(caught.value)
            == f'mqtt.key_file = "{key}": does not belong to mqtt.certificate_file = "{certificate}"'
        )


@pytest.mark.parametrize("form", [["ec", "-aes128"], ["pkey", "-aes128"]], ids=["traditional", "PKCS 8"])
def test_an_encrypted_key_is_refused_rather_than_asked_for(
    form: list[str], authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue("lab-03")
    encrypted = tmp_path / "encrypted.pem"
    command = ["openssl", form[0], "-in", key, *form[1:], "-passout", "pass:hunter2", "-out", encrypted]
    subprocess.run(command, check=True, capture_output=True)
    encrypted.chmod(0o600)
    with pytest.raises(
        ConfigError, match=r"mqtt\.key_file = .*is encrypted with a pass phrase.*openssl pkey"
    ):
        context_of(certificate_file=certificate, key_file=encrypted)


def test_files_that_hold_something_else_are_named(authority: Authority, keep: Keep) -> None:
    certificate, key = authority.issue("lab-03")
    nothing = keep("hello\n")
    with pytest.raises(ConfigError, match=r"mqtt\.key_file = .*: holds no private key in PEM form"):
        context_of(certificate_file=certificate, key_file=nothing)
    with pytest.raises(ConfigError, match=r"mqtt\.certificate_file = .*: holds no certificate in PEM form"):
        context_of(certificate_file=nothing, key_file=key)


def test_a_certificate_that_is_too_weak_says_so(tmp_path: Path) -> None:
    certificate, key = tmp_path / "weak.pem", tmp_path / "weak.key"
    request = "req -x509 -newkey rsa:512 -nodes -days 2 -subj /CN=weak"
    subprocess.run(
        ["openssl", *request.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    with pytest.raises(ConfigError, match=r"mqtt\.certificate_file = .*: cannot be used: .*key too small"):
        context_of(certificate_file=certificate, key_file=key)


def test_a_certificate_that_has_expired_is_warned_about_and_used(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    certificate, key = authority.issue("lab-03", days=-1)
    context_of(certificate_file=certificate, key_file=key)
    assert f'mqtt.certificate_file = "{certificate}": has expired on ' in caplog.text
    caplog.clear()
    certificate, key = authority.issue("lab-03")
    context_of(certificate_file=certificate, key_file=key)
    assert not caplog.text


@pytest.mark.parametrize("days", [2, -1, 20_000])
def test_the_end_of_a_certificate_is_read_whatever_the_century(days: int, authority: Authority) -> None:
    certificate, _ = authority.issue("lab-03", days=days)
    end = valid_until(certificate.read_text())
    assert end is not None
    text = subprocess.run(
        ["openssl", "x509", "-in", certificate, "-noout", "-enddate", "-dateopt", "iso_8601"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert f"{end:%Y-%m-%d %H:%M:%SZ}" in text
    assert abs(end - datetime.now(UTC) - timedelta(days=days)) < timedelta(hours=1)


def test_a_damaged_certificate_has_no_end(authority: Authority) -> None:
    certificate, _ = authority.issue("lab-03")
    der = bytearray(ssl.PEM_cert_to_DER_cert(certificate.read_text()))
    whole = valid_until(ssl.DER_cert_to_PEM_cert(bytes(der)))
    assert whole is not None
    for length in range(len(der)):
        assert valid_until(ssl.DER_cert_to_PEM_cert(bytes(der[:length]))) is None
    for index in range(min(len(der), 200)):
        changed = der.copy()
        changed[index] ^= 0xFF
        # Whatever it says then, it must not raise.
        valid_until(ssl.DER_cert_to_PEM_cert(bytes(changed)))
