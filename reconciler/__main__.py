"""``python -m reconciler``: the command line, where the command ``reconciler`` is not on the path."""

from reconciler.cli import main

if __name__ == "__main__":
    main()
