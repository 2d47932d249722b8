"""Ask ``mlcil serve`` many times at once, kill it, and start it again.

    python scripts/load_server.py TAGGER PHOTO [--requests 200] [--at-once 8]

Prints how long answers take and what the server's memory does; exits 1 when a request is lost.
"""

import argparse
import http.client
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def start(tagger):
    """A server on a free port -> (process, port) once it answers."""
    words = [sys.executable, "-m", "mlcil", "serve", tagger, "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    if not line:
        raise SystemExit("the server does not start")
    port = int(line.rpartition(":")[2])
    ask(port, "GET", "/health")
    return process, port


def ask(port, method, path, body=None):
    """(status, seconds) of a request."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    connection.request(method, path, body, {"Content-Type": "image/*"} if body else {})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, time.perf_counter() - began


def resident(process):
    """MB of memory of a process."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def load(port, photo, requests, at_once):
    """How many are lost, and the seconds of the others in rising order."""
    with ThreadPoolExecutor(at_once) as pool:
        found = list(pool.map(lambda _: ask(port, "POST", "/predict", photo), range(requests)))
    times = sorted(seconds for status, seconds in found if status == 200)
    return requests - len(times), times


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("tagger")
    words.add_argument("photo", type=Path)
    words.add_argument("--requests", type=int, default=200)
    words.add_argument("--at-once", type=int, default=8)
    options = words.parse_args()
    photo, lost = options.photo.read_bytes(), 0
    process, port = start(options.tagger)
    try:
        for turn in ("warm", "first", "second"):
            before = resident(process)
            began = time.perf_counter()
            missing, times = load(port, photo, options.requests, options.at_once)
            seconds = time.perf_counter() - began
            lost += missing
            late = f"median {1e3 * times[len(times) // 2]:.0f} ms, p95 {1e3 * times[len(times) * 95 // 100]:.0f} ms"
            memory = f"memory {before:.0f} -> {resident(process):.0f} MB"
            print(
                f"{turn}: {len(times)} answered, {missing} lost, {len(times) / seconds:.0f} a second, {late}, {memory}"
            )
        process.send_signal(signal.SIGKILL)
        process.wait()
        began = time.perf_counter()
        process, port = start(options.tagger)
        status, _ = ask(port, "POST", "/predict", photo)
        print(f"killed and started again: answers {status} after {time.perf_counter() - began:.1f} s")
        process.send_signal(signal.SIGTERM)
        code = process.wait(20)
        print(f"SIGTERM: ends with code {code}")
        lost += (status != 200) + (code != 0)
    finally:
        process.kill()
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
