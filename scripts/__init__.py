"""Commands of the project itself, run as modules: `python -m scripts.NAME`."""
