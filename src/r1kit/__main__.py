"""`python -m r1kit` is the command `r1kit`."""

from r1kit.cli import main

if __name__ == "__main__":
    main()
