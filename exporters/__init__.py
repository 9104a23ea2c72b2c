"""The way out: tail, seal, encode, upload, one module per store, the daemon."""
