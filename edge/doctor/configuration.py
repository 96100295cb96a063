"""Area *configuration*: every mistake in it, who may change it, and the secrets and certificates that it names."""

import stat
from collections.abc import Iterator

from edge.doctor.case import Case
from edge.doctor.finding import Finding, failed, passed, skipped, warned
from edge.store.folder import may

EXAMPLE = "microedge config example | sudo tee /etc/microedge/config.toml"


def settings(case: Case) -> Iterator[Finding]:
    """Give every mistake in the file."""
    if not case.is_config_known:
        yield skipped("file", f"{case.path}: this user may not read it", "sudo microedge doctor")
        case.unseen[f"the configuration {case.path}, and what depends on it"] = None
        return
    again = "microedge config check" + (f" --config {case.path}" if case.path is not None else "")
    for mistake in case.mistakes:
        yield failed("file", mistake, f"correct it, then: {again}")
    if case.mistakes:
        yield skipped("wrong keys", "are taken at their defaults in what follows")
    elif case.path is None and case.service.is_installed:
        yield warned("file", "there is no /etc/microedge/config.toml: defaults", EXAMPLE)
    elif case.path is None:
        yield passed("file", "no file: defaults")
    else:
        yield passed("file", f"{case.path}: nothing wrong found")


def permissions(case: Case) -> Iterator[Finding]:
    """Look at who may change the file, and whether the service may read it."""
    if case.path is None or not case.is_config_known:
        return
    try:
        status = case.path.stat()
    except OSError:
        return  # an absent file is among the mistakes
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o002:
        yield failed(
            "permissions",
            f"{case.path}: everybody may change it (mode {mode:04o})",
            f"sudo chmod o-w {case.path}",
        )
    elif not may(status, case.user.uid, case.user.groups, 4):
        yield failed(
            "permissions", f"{case.path}: {case.who()} may not read it (mode {mode:04o})",
            f"sudo chgrp microedge {case.path}; sudo chmod 640 {case.path}",
        )  # fmt: skip
    else:
        yield passed("permissions", f"mode {mode:04o}, {case.who()} may read it")


CHECKS = (settings, permissions)
