"""The web console: server-rendered pages, no build step, nothing loaded from elsewhere."""
