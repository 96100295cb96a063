"""Takes what it can: memory MIB, tasks COUNT, processor SECONDS, send ADDRESS...; prints how far it came."""

import socket
import sys
import threading
import time


def memory(most_mib: int) -> None:
    """Take memory by 20 MiB and write to it."""
    held = []
    for taken in range(20, most_mib + 1, 20):
        held.append(bytearray(b"\1") * (20 << 20))
        print(taken, flush=True)


def tasks(most: int) -> None:
    """Start threads until it is refused; they count as tasks, this one among them."""
    done = threading.Event()
    count = 1
    try:
        for _ in range(most):
            threading.Thread(target=done.wait, daemon=True).start()
            count += 1
    except RuntimeError:
        pass
    print(count, flush=True)
    done.set()


def processor(seconds: int) -> None:
    """Compute without a pause; print the share of one core that it got."""
    begun_s, used_s = time.monotonic(), time.process_time()
    while time.monotonic() - begun_s < seconds:
        pass
    print(round((time.process_time() - used_s) / (time.monotonic() - begun_s), 3), flush=True)


def send(*addresses: str) -> None:
    """Send one datagram to each address."""
    said = []
    for address in addresses:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            try:
                sender.sendto(b"", (address, 9))
                said.append("open")
            except PermissionError:
                said.append("refused")
    print(*said, flush=True)


if sys.argv[1] == "send":
    send(*sys.argv[2:])
else:
    {"memory": memory, "tasks": tasks, "processor": processor}[sys.argv[1]](int(sys.argv[2]))
