"""What a changed configuration means for a device that runs: what it takes at once, and what only a restart changes."""

from dataclasses import dataclass, replace

from edge.config import KEYS, Config
from edge.settings import SECTIONS, is_taken_at_reload


@dataclass(frozen=True, slots=True)
class Reload:
    """A configuration that was read again, beside the one in use."""

    config: Config
    """What the device is to use from now on: the new values where it can take them, the old ones elsewhere."""
    taken: tuple[str, ...]
    """Keys with a new value that is used from now on, in the order of the file."""
    waiting: tuple[str, ...]
    """Keys with a new value that needs a restart."""

    def changes(self, section: str) -> bool:
        """Tell whether a key of the section has a new value that is used from now on."""
        return any(name.startswith(f"{section}.") for name in self.taken)

    @property
    def words(self) -> str:
        """What happened, in one line."""
        parts = []
        if self.taken:
            parts.append(f"now in use: {', '.join(self.taken)}")
        if self.waiting:
            parts.append(f"needs a restart (systemctl restart microedge): {', '.join(self.waiting)}")
        return "; ".join(parts) or "nothing has changed"


def compare(used: Config, read: Config) -> Reload:
    """Compare the configuration in use with the one that was just read."""
    changed = [name for name in KEYS if _value(used, name) != _value(read, name)]
    taken = tuple(name for name in changed if is_taken_at_reload(name))
    sections = {}
    for section in SECTIONS:
        values = {
            name.partition(".")[2]: _value(read, name) for name in taken if name.startswith(f"{section}.")
        }
        sections[section] = replace(getattr(used, section), **values)
    return Reload(Config(**sections), taken, tuple(name for name in changed if name not in taken))


def _value(config: Config, name: str) -> object:
    section, _, key = name.partition(".")
    return getattr(getattr(config, section), key)
