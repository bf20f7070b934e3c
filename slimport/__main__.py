"""`python -m slimport` is the command `slimport`."""

from converters.cli import main

if __name__ == "__main__":
    main()
