"""What is served over HTTP: the console, and the API."""
