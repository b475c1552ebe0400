"""Tests import the scripts from the folder above, as a user's Python does who starts them there."""

import http.server
import os
import random
import signal
import sys
import threading
from pathlib import Path

for name in "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS":
    os.environ.setdefault(name, "1")  # as util.main() has it, for this process and all that it starts
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**25))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has Ctrl-C ignored
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import matplotlib.figure  # noqa: E402
import pytest  # noqa: E402

import helpers  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="run the long soak of kills and resumes too")
    parser.addoption("--random-seed", type=int, default=random.randrange(2**32), metavar="N",
                     help="seed of the random draws of the tests (a failure tells which it was)")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give all tests of a file to the same process: what they share is made once."""
    from xdist.scheduler import LoadFileScheduling
    return LoadFileScheduling(config, log)


def pytest_terminal_summary(terminalreporter, config):
    if terminalreporter.stats.keys() & {"failed", "error"}:
        terminalreporter.line(f"The random draws were those of --random-seed {config.getoption('--random-seed')}")


def draws(request):
    """Return a source of random draws, the same for the same --random-seed whichever other tests are run."""
    return random.Random(f"{request.config.getoption('--random-seed')} {request.node.nodeid}")


rng = pytest.fixture(draws, name="rng")
module_rng = pytest.fixture(draws, name="module_rng", scope="module")


@pytest.fixture
def quick_pictures(monkeypatch):
    """Have figures in this process save their title and zeros for a picture: to draw one takes 100 tiny updates."""
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda self, file, dpi, **_:
                        file.write(f"{self.axes[0].get_title()}, {dpi} dpi".encode().ljust(30_000, b"\0")))


@pytest.fixture
def server():
    """A web server whose answers can be set: status, content, announced length; it counts the requests.

    As a proxy it is asked to CONNECT, and answers that alike.
    """
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests += 1
            if server.meeting:
                server.meeting.wait(20)
            self.send_response(server.status)
            self.send_header("Content-Length", str(server.length or len(server.content)))
            self.end_headers()
            self.wfile.write(server.content)

        do_CONNECT = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.status, server.content, server.length, server.meeting = 0, 200, b"", None, None
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """A part of the play, long enough for tiny runs."""
    path = tmp_path_factory.mktemp("text") / "part.txt"
    path.write_bytes((ROOT / "data" / "play.txt").read_bytes()[:6000])
    return path


@pytest.fixture(scope="session", autouse=True)
def no_process_outlives_the_tests():
    yield
    for process in helpers.children:
        if process.poll() is None:
            process.kill()
            process.communicate()
