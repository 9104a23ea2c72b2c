"""The way out: tail, seal, encode, deliver."""
