"""bitnetc: an ahead-of-time compiler for BitNet models."""

__version__ = "0.1.0"
