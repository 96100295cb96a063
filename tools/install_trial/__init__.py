"""Installs microedge on a bare Debian in a container, upgrades it, breaks upgrades, removes it, looks at what is left.

`bare` makes the Debian and the versions to install, `tree` lists files, `machine` is the container with a few words of
shell for it, `steps` are the proofs; `python -m tools.install_trial` runs them and prints a report.
"""
