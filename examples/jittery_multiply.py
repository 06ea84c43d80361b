"""Multiply numbers on an endpoint, with some jitter: python jittery_multiply.py 1 2 6.283

Runs on the endpoint that FARCALL_ENDPOINT_ID names, else on the first of yours that is online.
"""

import os
import sys
from concurrent.futures import as_completed

from farcall import Client, Executor


def jittery_multiply(a: float, b: int) -> float:
    import random  # Imports must be inline: only the function's own code travels.

    return a * b + random.uniform(-1.0, 1.0)


def my_endpoint() -> str:
    client = Client()
    for endpoint in client.get_endpoints():
        if client.get_endpoint_status(endpoint["uuid"])["status"] == "online":
            return endpoint["uuid"]
    sys.exit("None of your endpoints is online. Start one: farcall-endpoint start NAME")


if __name__ == "__main__":
    with Executor() as executor:
        executor.endpoint_id = os.environ.get("FARCALL_ENDPOINT_ID") or my_endpoint()
        futures = [
            executor.submit(jittery_multiply, float(a), b) for a, b in zip(sys.argv[1:], range(100), strict=False)
        ]
        for future in as_completed(futures):
            print(future.result())
