"""An open exchange as a Faust stream-processing application."""

__version__ = "0.1.0"
