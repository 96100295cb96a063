"""Examines the machine that microedge is to run on, without changing or disturbing anything on it.

`examine` asks one module per area, each of which gives `Finding`s. What they look at goes through `System`, whose root
folder tests replace by one of their own: a good Raspberry Pi and broken ones are folders of files and small scripts.

Decisions
- A check that waits for something that may hang (a camera library, a broker, systemd) asks it in a child process or
  with a time limit; around each check stands another limit, and one that raises is a failed line.
- What the configuration does not ask for is skipped, not failed. So is what this user may not see; it is listed, with
  the command that shows it.
- A running service is left alone: no pin is taken, no camera opened that it holds, nothing retained at the broker, and
  its MQTT session has another client id.
"""

AREAS = (
    "configuration", "runtime", "camera", "coral", "pins", "broker", "clock", "power", "store", "service",
)  # fmt: skip
"""The modules of the checks, in the order of the report. Each has `CHECKS`, functions from a case to findings."""
