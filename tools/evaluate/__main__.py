"""Run `python -m tools.evaluate`."""

from tools.evaluate.rendered import main

if __name__ == "__main__":
    main()
