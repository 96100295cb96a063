"""What every check is given: the machine, the configuration, and what systemd says of the service."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from edge.config import Config, Mqtt
from edge.doctor.system import Holder, System
from edge.store.folder import User

UNIT = "microedge.service"
GROUPS = ("video", "gpio", "plugdev")
"""Groups that the unit adds to its user (SupplementaryGroups=)."""
LOADED = "microedge:/etc/microedge/credentials"
"""LoadCredential= of the shipped unit, for a machine without one."""
_PROPERTIES = (
    "LoadState", "ActiveState", "SubState", "UnitFileState", "NRestarts", "Result", "ExecMainStatus", "MainPID",
    "StatusText", "WatchdogUSec", "FragmentPath", "DropInPaths", "NeedDaemonReload", "User", "Environment",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Service:
    """What `systemctl show` tells of the service; every value is empty where systemd does not run."""

    lines: tuple[str, ...]
    """`Name=value`; some names come more than once."""

    def value(self, name: str) -> str:
        """Give the value of a property; empty if systemd does not tell it."""
        return next(iter(self.values(name)), "")

    def values(self, name: str) -> list[str]:
        """Give every value of a property that comes more than once."""
        return [line.removeprefix(f"{name}=") for line in self.lines if line.startswith(f"{name}=")]

    @property
    def is_installed(self) -> bool:
        return self.value("LoadState") not in ("", "not-found")

    @property
    def pid(self) -> int:
        """Its main process; 0 while it does not run."""
        text = self.value("MainPID")
        return int(text) if text.isdecimal() else 0

    @property
    def is_running(self) -> bool:
        return self.pid > 0


class Case:
    """One examination."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        system: System | None = None,
        path: Path | None = None,
        mistakes: Iterable[str] = (),
    ) -> None:
        """Take what is to be examined.

        Args:
            config: the configuration, wrong keys at their defaults; None: this user may not read it.
            system: the machine; None: this one.
            path: the file that the configuration is from; None: defaults.
            mistakes: what is wrong with it, one line each.
        """
        self.is_config_known = config is not None
        self.config = config or Config()
        self.system = system or System()
        self.path, self.mistakes = path, tuple(mistakes)
        self.unseen: dict[str, None] = {}
        """What this user may not see, in order; a check adds to it."""

    @cached_property
    def service(self) -> Service:
        """What systemd says of the service."""
        answer = self.system.run("systemctl", "show", UNIT, "--no-pager", "--property", ",".join(_PROPERTIES))
        return Service(tuple(answer.text.splitlines()) if not answer.problem else ())

    @cached_property
    def user(self) -> User:
        """The user whose rights count: the service's where it is installed, else the one who asks."""
        name = (self.service.value("User") or "root") if self.service.is_installed else ""
        entry = self._entry("/etc/passwd", name)
        if not name or len(entry) < 4:
            return User(self.system.euid, User.current().groups)
        groups = {int(entry[3])}
        for line in self.system.read("/etc/group").splitlines():
            group, _, number, members = (*line.split(":"), "", "", "")[:4]
            if (group in GROUPS or name in members.split(",")) and number.isdecimal():
                groups.add(int(number))
        return User(int(entry[2]), frozenset(groups), name)

    def written(self, setting: str) -> list[str]:
        """Give the values of a setting in the unit's files, in order; an empty one forgets those before it.

        For what `systemctl show` does not tell: systemd 252 has `[unprintable]` for credentials, and of a stopped
        service the watchdog that it had.
        """
        found: list[str] = []
        for path in (self.service.value("FragmentPath"), *self.service.value("DropInPaths").split()):
            for line in self.system.read(path).splitlines() if path else ():
                name, equals, value = (part.strip() for part in line.partition("="))
                if equals and name == setting:
                    found = [*found, value] if value else []
        return found

    def shipped(self, name: str) -> str:
        """Give where a file of this version's `systemd` folder lies, for a person to read."""
        places = (folder / name for folder in self.system.shipped)
        return str(next((place for place in places if place.exists()), f"systemd/{name}"))

    def who(self) -> str:
        """Give the user whose rights count, in words."""
        return f"user {self.user.name}" if self.user.name else "this user"

    def is_ours(self, holders: Iterable[Holder]) -> bool:
        """Whether the running service is the only one among `holders`; its accelerator's child counts as it."""
        pids = {holder.pid for holder in holders}
        return bool(pids) and all(self._is_service(pid) for pid in pids)

    @cached_property
    def mqtt(self) -> Mqtt:
        """The section `mqtt` with the names of systemd credentials replaced by the files that they are taken from.

        Source: systemd.exec(5), LoadCredential=: of a folder each file becomes a credential, the ID and _ before its
        name.
        """
        section = self.config.mqtt
        if self.system.environment.get("CREDENTIALS_DIRECTORY"):
            return section
        return replace(
            section,
            password_file=self._credential(section.password_file),
            key_file=self._credential(section.key_file),
        )

    @property
    def unloaded(self) -> list[str]:
        """Names of credentials in the configuration that the unit does not load."""
        names = (self.mqtt.password_file, self.mqtt.key_file)
        return [name for name in names if name and "/" not in name]

    def _credential(self, name: str) -> str:
        if not name or "/" in name:
            return name
        for load in self.written("LoadCredential") or [LOADED]:
            identity, _, source = load.partition(":")
            if name == identity:
                return str(self.system.path(source))
            if name.startswith(f"{identity}_"):
                return str(self.system.path(source) / name.removeprefix(f"{identity}_"))
        return name

    def _is_service(self, pid: int) -> bool:
        if not self.service.is_running:
            return False
        return pid == self.service.pid or UNIT in self.system.read(f"/proc/{pid}/cgroup")

    def _entry(self, file: str, name: str) -> list[str]:
        for line in self.system.read(file).splitlines():
            if line.split(":")[0] == name:
                return line.split(":")
        return []
