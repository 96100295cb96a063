"""Real devices without a camera, a broker and a network that fail on demand, and a subscriber that misses nothing.

`tools.chaos` puts them together; the parts serve other trials and tests as well:

- `device`: the device's own publishing code with simulated events, in a process of its own;
- `child`: that process seen from outside: start it, kill it, and note what it promised;
- `broker`: a private mosquitto that keeps its sessions over a restart;
- `relay`: the network between the two, which can refuse, cut, stall, swallow answers, and heal;
- `disk`: the folder of the outbox, which can fill up;
- `subscriber` and `judge`: what arrived, held against what was promised.
"""
