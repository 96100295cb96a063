"""`microedge config`: check, show and explain the configuration."""

import argparse

from edge.commands import DEVICE_CONFIG, configuration
from edge.config import example, reference, to_toml


def main(arguments: argparse.Namespace) -> int:
    """Print what was asked for; `show` and `check` fail with every mistake at once."""
    if arguments.action == "reference":
        print(reference(), end="")
    elif arguments.action == "example":
        print(example(), end="")
    else:
        config = configuration(arguments, opens_camera=arguments.action == "check")
        if arguments.action == "show":
            print(to_toml(config), end="")
        else:
            path = arguments.config or (DEVICE_CONFIG if DEVICE_CONFIG.exists() else "defaults")
            print(f"{path}: nothing wrong found")
    return 0
