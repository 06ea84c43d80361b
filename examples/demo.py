"""`make demo`: a service, an endpoint, and a model selection over handwritten digits, all on this machine.

Everything it makes lies in `.demo/` (or `--dir`): the service's data, the endpoint's directory, logs, tokens. A second
run uses what still runs. `--stop` (`make demo-stop`) ends it. Only the commands that a user would type are called.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import as_completed
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from farcall import ComputeFuture, Executor
from farcall.sdk.progress import progress

ENDPOINT = "demo-endpoint"
HERE = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
console = Console(highlight=False)


def evaluate(model: str, params: dict[str, Any], folds: int = 3) -> dict[str, Any]:
    """Cross-validate one model on scikit-learn's bundled handwritten digits (1797 images of 8 x 8). Runs remotely."""
    import os  # imports are inline: only this function's own code travels
    import time

    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    kinds = {"svm": SVC, "k-nearest": KNeighborsClassifier, "forest": RandomForestClassifier}
    images, labels = load_digits(return_X_y=True)
    started = time.perf_counter()
    scores = cross_val_score(make_pipeline(StandardScaler(), kinds[model](**params)), images, labels, cv=folds)
    return {
        "model": model,
        "params": params,
        "accuracy": float(scores.mean()),
        "spread": float(scores.std()),
        "seconds": time.perf_counter() - started,
        "worker": os.getpid(),
    }


def candidates() -> list[tuple[str, dict[str, Any]]]:
    """What is tried: 64 models."""
    svm = [{"C": c, "gamma": g} for c, g in product((0.1, 0.3, 1, 3, 10, 30, 100), (0.001, 0.003, 0.01, 0.03))]
    near = [{"n_neighbors": n, "weights": w} for n, w in product(range(1, 10), ("uniform", "distance"))]
    forest = [
        {"n_estimators": n, "max_depth": d, "max_features": f, "random_state": 0}
        for n, d, f in product((20, 40, 80), (6, 10, None), ("sqrt", "log2"))
    ]
    return [("svm", p) for p in svm] + [("k-nearest", p) for p in near] + [("forest", p) for p in forest]


def free_port(preferred: int) -> int:
    """The preferred port if nobody has it, else one the system picks."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SystemExit("no free TCP port on 127.0.0.1")


class Demo:
    """The demo's directory, and the commands run in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data_dir = directory / "service"
        self.config_dir = directory / "endpoints"
        self.env = {**os.environ, "FARCALL_USER_DIR": str(directory / "user"), "COLUMNS": "200", "NO_COLOR": "1"}

    def run(self, command: str, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([str(BIN / command), *args], env=self.env, capture_output=True, text=True)
        if check and done.returncode:
            console.print(f"[red]{command} {' '.join(args)} failed with status {done.returncode}:[/red]")
            console.print(done.stdout + done.stderr, markup=False)
            raise SystemExit(done.returncode)
        return done

    def service(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("farcall-service", *args, "--data-dir", str(self.data_dir), check=check)

    def endpoint(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("farcall-endpoint", "--config-dir", str(self.config_dir), *args, check=check)

    def running_service(self) -> str | None:
        """The URL of the demo's service if it runs."""
        done = self.service("status", "--json", check=False)
        try:
            status = json.loads(done.stdout)
        except ValueError:
            return None
        return status["url"] if status.get("running") else None

    def ensure_service(self) -> str:
        url = self.running_service()
        if url is None:
            http, amqp = free_port(5000), free_port(5672)
            self.service("start", "--detach", "--port", str(http), "--amqp-port", str(amqp))
            url = self.running_service()
            assert url, "the service said that it started"
        self.env["FARCALL_SERVICE_URL"] = url
        return url

    def ensure_endpoint(self) -> str:
        directory = self.config_dir / ENDPOINT
        if not (directory / "config.yaml").exists():
            self.endpoint("configure", ENDPOINT)
            (directory / "config.yaml").write_text(ENDPOINT_CONFIG)
        started = self.endpoint("start", ENDPOINT, "--detach", check=False)
        already_running = 73
        if started.returncode not in (0, already_running):
            console.print(started.stdout + started.stderr, markup=False)
            raise SystemExit(started.returncode)
        return str(json.loads((directory / "endpoint.json").read_text())["endpoint_id"])

    def stop(self) -> None:
        if (self.config_dir / ENDPOINT).exists():
            self.endpoint("stop", ENDPOINT, check=False)
        if self.data_dir.exists():
            self.service("stop", check=False)


ENDPOINT_CONFIG = """\
# The endpoint of `make demo`: two workers on this machine, by Parsl's HighThroughputExecutor.
display_name: Demo endpoint
engine:
  type: GlobusComputeEngine
  max_workers_per_node: 2
  # The first result comes sooner when a block of workers is there from the start.
  provider:
    type: LocalProvider
    init_blocks: 1
    min_blocks: 1
    max_blocks: 1
"""


def show_best(results: list[dict[str, Any]], failed: int) -> None:
    table = Table(title="Best of the sweep", title_justify="left")
    for column, justify in (("", "right"), ("model", "left"), ("parameters", "left"), ("accuracy", "right"),
                            ("± std", "right"), ("seconds", "right")):  # fmt: skip
        table.add_column(column, justify=justify)  # type: ignore[arg-type]  # the literals above are rich's
    best = sorted(results, key=lambda r: -r["accuracy"])[:10]
    for rank, r in enumerate(best, 1):
        params = ", ".join(f"{k}={v}" for k, v in r["params"].items() if k != "random_state")
        table.add_row(
            str(rank), r["model"], params, f"{r['accuracy']:.2%}", f"{r['spread']:.2%}", f"{r['seconds']:.2f}"
        )
    console.print(table)
    busy = sum(r["seconds"] for r in results)
    workers = len({r["worker"] for r in results})
    console.print(f"{len(results)} models on {workers} workers, {busy:.0f} s of computing; {failed} failed.")


def sweep(endpoint_id: str) -> int:
    """Submit every candidate, show progress and the best ten. Returns how many failed."""
    with Executor(endpoint_id=endpoint_id) as executor:
        futures: list[ComputeFuture[Any]] = [executor.submit(evaluate, m, p) for m, p in candidates()]
        with progress(futures, "Model selection"):
            results, failed = [], 0
            for future in as_completed(futures):
                error = future.exception()
                if error is None:
                    results.append(future.result())
                else:
                    failed += 1
                    console.print(f"[red]a task failed:[/red] {type(error).__name__}: {error}")
    show_best(results, failed)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=HERE / ".demo", help="where everything lies (default: .demo)")
    parser.add_argument("--stop", action="store_true", help="stop what an earlier run left running")
    options = parser.parse_args()
    demo = Demo(options.dir.resolve())
    if options.stop:
        demo.stop()
        console.print(
            f"The demo's endpoint and service are stopped; their data stays in {demo.directory}", soft_wrap=True
        )
        return
    demo.directory.mkdir(parents=True, exist_ok=True)
    console.rule("[bold]Farcall demo[/bold]", align="left")
    url = demo.ensure_service()
    console.print(f"Service   {url}   (data and log: {demo.data_dir})", soft_wrap=True)
    endpoint_id = demo.ensure_endpoint()
    console.print(f"Endpoint  {endpoint_id}   (directory: {demo.config_dir / ENDPOINT})", soft_wrap=True)
    os.environ.update({k: demo.env[k] for k in ("FARCALL_USER_DIR", "FARCALL_SERVICE_URL")})
    failed = sweep(endpoint_id)
    console.rule(align="left")
    for what, where in (
        ("Console", f"{url}/compute"),
        ("REST docs", f"{url}/docs"),
        ("Service log", demo.data_dir / "service.log"),
        ("Endpoint log", demo.config_dir / ENDPOINT / "endpoint.log"),
    ):
        console.print(f"{what:13} {where}", soft_wrap=True)
    console.print("To look at them in a browser, open the link that this prints:")
    console.print(f"  .venv/bin/farcall-service login-link --data-dir {demo.data_dir}", soft_wrap=True)
    console.print("To use them from here:")
    console.print(f"  export FARCALL_SERVICE_URL={url} FARCALL_USER_DIR={demo.env['FARCALL_USER_DIR']}", soft_wrap=True)
    console.print(f"  .venv/bin/farcall run {ENDPOINT} 'hostname; date'")
    console.print("Service and endpoint go on running. Stop both with:  make demo-stop")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
