"""TF-Slim networks in today's frameworks: one description (`spec`), three ports (`nets`, `pytorch`, `keras`)."""

__version__ = "0.1.0"
