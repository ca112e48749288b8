"""The processes that the SDK talks to: the gateway and an upstream, each on a free port, ended at the end.

MAGICAPI_TEST_BINARY is the gateway's binary; MAGICAPI_TEST_AIMOCK the command of aimock, an upstream that we did not
write. `./test` sets both.
"""

import atexit
import json
import os
import re
import shlex
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BINARY = os.environ.get("MAGICAPI_TEST_BINARY", str(ROOT / "target/debug/magicapi-ai-gateway"))
DEADLINE = 60


class Process:
    """A process whose lines are read by a thread."""

    def __init__(self, command, environment=None):
        self.lines = []
        base = {"PATH": os.environ["PATH"]}
        self.child = subprocess.Popen(
            command,
            env={**base, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        atexit.register(self.child.kill)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.child.stdout:
            self.lines.append(line)

    def wait_for(self, find):
        """The first line of which `find` makes something."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            ended = self.child.poll() is not None
            for line in list(self.lines):
                if found := find(line):
                    return found
            if ended:
                break
            time.sleep(0.02)
        raise AssertionError(f"{self.child.args} did not get ready:\n{''.join(self.lines)}")


def listening_at(line):
    found = re.search(r"listening on (http://[0-9.:]+)", line)
    return found and found[1]


def gateway_address(line):
    try:
        line = json.loads(line)
    except ValueError:
        return None
    return line["address"] if line.get("message") == "listening" else None


def start_mock():
    """Our mock provider; its base URL."""
    return Process([BINARY, "mock", "--listen", "127.0.0.1:0"]).wait_for(listening_at) + "/v1"


def start_aimock():
    """aimock with our fixtures; its base URL."""
    command = shlex.split(os.environ["MAGICAPI_TEST_AIMOCK"])
    fixtures = str(ROOT / "tests/sdk/aimock/fixtures.json")
    command += ["-p", "0", "-f", fixtures, "--strict", "--validate-on-load"]
    return Process(command).wait_for(listening_at) + "/v1"


def start_gateway(upstream, **environment):
    """A gateway in front of the upstream; the base URL for SDKs."""
    directory = tempfile.TemporaryDirectory()
    atexit.register(directory.cleanup)
    settings = {
        "PORT": "0",
        "ADMIN_LISTEN": "127.0.0.1:0",
        "LOG_FORMAT": "json",
        "DATA_DIR": directory.name,
        "OPENAI_BASE_URL": upstream,
        **environment,
    }
    return Process([BINARY], settings).wait_for(gateway_address) + "/v1"
