"""`python -m segjax`: the command `segjax`."""

from segjax.cli.main import main

if __name__ == "__main__":
    main()
