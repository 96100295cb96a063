"""`microedge config`: check, show and explain the configuration."""

import argparse

from edge.commands import configuration, device_config
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
            print(f"{device_config(arguments) or 'defaults'}: nothing wrong found")
    return 0
