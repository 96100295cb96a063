"""Area *broker*: credentials, certificates, and a message that goes there and comes back."""

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from edge.doctor.case import Case
from edge.doctor.finding import Finding, Verdict, failed, passed, skipped, warned
from edge.doctor.roundtrip import RoundTrip
from edge.errors import ConfigError
from edge.out.mqtt.certificate import valid_until
from edge.out.mqtt.client import CONNECT_TIMEOUT_S, Access
from edge.out.mqtt.credentials import BrokerAddress, problems, where
from edge.out.mqtt.diagnosis import why_no_connection
from edge.out.mqtt.sink import access
from edge.store.folder import User

SOON_DAYS = 30
"""A certificate that ends within this time wants a new one made."""
_CLOSED = "cannot be read: Permission denied"


def user(case: Case) -> User | None:
    """Give as whom the broker is asked: the service's user, where root asks and every secret is a file of its own.

    A file that belongs to the service's user is as it should be, and would look suspicious to root. What systemd hands
    over as a credential only root can read where it lies.
    """
    names = (case.config.mqtt.password_file, case.config.mqtt.key_file)
    is_handed_over = any(name and "/" not in name for name in names)
    return (
        case.user if case.system.is_root and case.user.name and case.user.uid and not is_handed_over else None
    )


def credentials(case: Case) -> Iterator[Finding]:
    """Look at what opens the broker's door, and at who else could use it."""
    mqtt = case.config.mqtt
    if not _is_asked_for(case):
        why = "mqtt.enabled = false" if case.is_config_known else "the configuration may not be read"
        yield skipped("broker", why)
        return
    for name in case.unloaded:
        yield failed(
            "credentials", f'"{name}" names a systemd credential that the unit does not load',
            f"put the file into /etc/microedge/credentials and write microedge_{name}, or /path/to/{name}",
        )  # fmt: skip
    found = problems(case.mqtt) if not case.unloaded else []
    closed = [each for each in found if _CLOSED in each and not case.system.is_root]
    if closed:
        case.unseen["the broker's credentials, and so whether the device is let in"] = None
        yield skipped("credentials", "this user may not read them", "sudo microedge doctor")
    for problem in (each for each in found if each not in closed):
        words, _, command = problem.partition(": run ")
        advice = f"sudo {command}" if command else "correct the setting or the file"
        if " it (mode " in words and _is_kept_closed(case):
            # systemd hands it over all the same, as a copy for the service alone.
            yield warned("credentials", f"{words}, were its folder not closed to them", advice)
        else:
            yield failed("credentials", words, advice)
    if not found and not case.unloaded:
        what = [
            name
            for name in ("password_file", "ca_file", "certificate_file", "key_file")
            if getattr(mqtt, name)
        ]
        words = ", ".join(f"mqtt.{name}" for name in what)
        yield passed(
            "credentials", f"{words}: readable for those alone who should" if what else "none are needed"
        )


def own_certificate(case: Case) -> Iterator[Finding]:
    """Look at how long the device's own certificate is valid."""
    path = case.config.mqtt.certificate_file
    if not (_is_asked_for(case) and case.config.mqtt.tls and path):
        return
    try:
        end = valid_until(Path(path).read_text(encoding="latin-1"))
    except OSError:
        return  # among the credentials
    if end is not None:
        yield _lifetime(case, "own certificate", f"mqtt.certificate_file = {path}", end)


def connection(case: Case) -> Iterator[Finding]:
    """Connect to every broker, and send a message there and back."""
    if not _is_asked_for(case) or case.unloaded:
        return
    try:
        ours = access(case.mqtt, case.config.device.id)
    except ConfigError:
        # Without the secrets it can still be seen whether something listens there.
        ours = None
    brokers = where(case.config.mqtt)
    with ThreadPoolExecutor(len(brokers)) as pool:
        answers = list(pool.map(lambda broker: _ask(case, ours, broker), brokers))
    is_one_well = any(all(each.verdict is not Verdict.FAIL for each in answer) for answer in answers)
    for answer in answers:
        for each in answer:
            is_spare = is_one_well and each.verdict is Verdict.FAIL
            yield replace(each, verdict=Verdict.WARN) if is_spare else each


CHECKS = (credentials, own_certificate, connection)


def _is_kept_closed(case: Case) -> bool:
    """Whether every secret is one of systemd's, in a folder that only root can enter."""
    names = (case.config.mqtt.password_file, case.config.mqtt.key_file)
    files = [Path(file) for name, file in zip(names, (case.mqtt.password_file, case.mqtt.key_file), strict=True)
             if name and "/" not in name]  # fmt: skip
    return len(files) == sum(map(bool, names)) and all(
        not file.parent.stat().st_mode & 0o077 for file in files
    )


def _is_asked_for(case: Case) -> bool:
    return case.is_config_known and case.config.mqtt.enabled


def _ask(case: Case, ours: Access | None, broker: BrokerAddress) -> list[Finding]:
    if ours is None:
        return [_reach(broker)]
    found = []
    if ours.tls is not None and (certificate := _certificate(case, ours.tls, broker)):
        found.append(certificate)
    elif ours.tls is None and not _is_here(broker.host):
        found.append(warned("encryption", f"{broker}: none (mqtt.tls = false): the network can read every event",
                            f"set mqtt.tls = true, as in {case.shipped('broker/README.md')}"))  # fmt: skip
    trip = RoundTrip(ours, broker)
    if trip.problem:
        found.append(failed("login", f"{broker}: {trip.problem}", _advice(case, broker, trip.problem)))
        return found
    who = f"as {ours.username}" if ours.username else "without a user name"
    found.append(
        passed("login", f"{broker}: let in {who} in {trip.connect_ms:.0f} ms (MQTT {ours.protocol})")
    )
    if not trip.echo_problem:
        found.append(passed("round trip", f"{trip.topic}: came back in {trip.echo_ms:.1f} ms"))
        return found
    words = f"{trip.topic}: {trip.echo_problem}"
    allowed = case.shipped("broker/microedge.acl")
    advice = f"let this user publish and subscribe below {ours.base}/ there, as in {allowed}"
    worse = failed if ours.check_echo else warned
    found.append(worse("round trip", words, advice))
    return found


def _reach(broker: BrokerAddress) -> Finding:
    """See whether something listens there, without saying a word."""
    try:
        socket.create_connection((broker.host, broker.port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        reason = why_no_connection(error, tls=False, websocket_path="")
        return failed(
            "reachable", f"{broker}: {reason}", "are mqtt.host and mqtt.port right? is the broker running?"
        )
    return passed(
        "reachable", f"{broker}: something listens there; without the credentials no more can be asked"
    )


def _certificate(case: Case, context: ssl.SSLContext, broker: BrokerAddress) -> Finding | None:
    """Look at the broker's certificate; None if it cannot be had, which the login then explains."""
    try:
        with (
            socket.create_connection((broker.host, broker.port), CONNECT_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=broker.host) as secure,
        ):
            end = str((secure.getpeercert() or {}).get("notAfter", ""))
    except (OSError, ValueError):
        return None
    return _lifetime(
        case, "certificate", str(broker), datetime.fromtimestamp(ssl.cert_time_to_seconds(end), UTC)
    )


def _lifetime(case: Case, name: str, what: str, end: datetime) -> Finding:
    renew = f"make a new one before then: {case.shipped('broker/README.md')}"
    days = (end - case.system.now()).total_seconds() / 86_400
    if days < 0:
        return failed(name, f"{what}: has expired on {end:%Y-%m-%d}; or this device's clock is wrong", renew)
    words = f"{what}: valid for {days:.0f} days, until {end:%Y-%m-%d}"
    if days < SOON_DAYS:
        return warned(name, f"{words}; less than {SOON_DAYS}", renew)
    return passed(name, words)


def _advice(case: Case, broker: BrokerAddress, problem: str) -> str:
    if "nothing listens" in problem and _is_here(broker.host):
        return "sudo systemctl enable --now mosquitto (sudo apt install mosquitto), or set mqtt.host"
    if "refused" in problem and "authori" in problem.lower():
        return "on the broker: sudo mosquitto_passwd /etc/mosquitto/passwords " + (case.config.device.id)
    return f"ping {broker.host}; look at the broker's log; mqtt.host, mqtt.port, mqtt.tls"


def _is_here(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"
