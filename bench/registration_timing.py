"""Checks that the time of a registration does not reveal whether the address is known.

Registers new, known and rate-limited addresses in turn against a running service, and prints how
long the answers took. The service must run without rate limits:

    cargo run -- --memory --port 3300 --no-rate-limit
    bench/registration-timing http://127.0.0.1:3300

Exits with 1 if the interquartile ranges of two kinds of address do not overlap.
"""

import json
import statistics
import sys
import time
import urllib.request

ROUNDS = 100
MAILS_PER_HOUR = 5


def register(base_url, address):
    body = json.dumps({"email": address}).encode()
    request = urllib.request.Request(
        base_url + "/api/v1/tokens", data=body, headers={"Content-Type": "application/json"}
    )
    started = time.perf_counter()
    with urllib.request.urlopen(request) as response:
        response.read()
        assert response.status == 202
    return (time.perf_counter() - started) * 1000


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    base_url = sys.argv[1].rstrip("/")
    run = time.time_ns()
    limited = f"limited-{run}@example.com"
    for _ in range(MAILS_PER_HOUR):
        register(base_url, limited)
    took = {"new": [], "known": [], "limited": []}
    for round in range(ROUNDS):
        address = f"person-{run}-{round}@example.com"
        took["new"].append(register(base_url, address))
        took["known"].append(register(base_url, address))
        took["limited"].append(register(base_url, limited))

    ranges = {}
    print(f"{'address':<10}{'25 %':>10}{'median':>10}{'75 %':>10}{'max':>10}   ms of {ROUNDS}")
    for kind, times in took.items():
        low, median, high = statistics.quantiles(times, n=4)
        ranges[kind] = (low, high)
        print(f"{kind:<10}{low:>10.1f}{median:>10.1f}{high:>10.1f}{max(times):>10.1f}")
    latest_start = max(low for low, _ in ranges.values())
    earliest_end = min(high for _, high in ranges.values())
    if latest_start > earliest_end:
        sys.exit("The interquartile ranges do not overlap: timing reveals the kind of address.")


if __name__ == "__main__":
    main()
