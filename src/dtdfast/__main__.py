"""`python -m dtdfast` is the command `dtdfast`."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
