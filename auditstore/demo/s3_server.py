"""A local S3 server for the demo, run as a process: moto, until standard input closes."""

from __future__ import annotations

import sys

SAYS = "listens on "


def main() -> None:
    """Serve S3 on a free loopback port; the URL goes to standard output."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - an extra

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    sys.stdout.write(f"{SAYS}http://{host}:{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
