"""TF-Slim networks in today's frameworks: one description each (`networks`), ports in `nets`, `pytorch`, `keras`."""

__version__ = "0.1.0"
