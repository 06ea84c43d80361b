"""The built-in function that reports what machine a worker has. It travels as source, so it imports inside."""

from __future__ import annotations

__all__ = ["hardware_report"]


def hardware_report() -> str:
    """CPU, memory, GPUs, disk, operating system and Python of the worker that runs this, one per line."""
    import os
    import platform
    import shutil
    import subprocess
    import sys

    def text_of(path: str) -> str:
        try:
            with open(path) as file:
                return file.read()
        except OSError:
            return ""

    def output_of(*command: str) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
            return done.stdout.strip() if done.returncode == 0 else ""
        except (OSError, subprocess.SubprocessError):
            return ""

    def field(text: str, name: str) -> str:
        for line in text.splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
        return ""

    memory = text_of("/proc/meminfo")
    gib = {name: int(field(memory, name).split()[0]) / 2**20 for name in ("MemTotal", "MemAvailable") if memory}
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    disk = shutil.disk_usage(os.getcwd())
    nvidia = output_of("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    amd = output_of("rocm-smi", "--showproductname", "--csv")
    rows = [
        ("Host", platform.node()),
        ("Operating system", platform.platform()),
        ("Python", f"{platform.python_version()} ({sys.executable})"),
        ("CPU", field(text_of("/proc/cpuinfo"), "model name") or platform.machine()),
        ("Cores", f"{usable} usable of {os.cpu_count()}"),
        ("Memory", f"{gib['MemAvailable']:.1f} GiB available of {gib['MemTotal']:.1f} GiB" if gib else "unknown"),
        ("Working directory", f"{os.getcwd()} ({disk.free / 2**30:.1f} GiB free of {disk.total / 2**30:.1f} GiB)"),
        ("GPU", nvidia or amd or "none found"),
    ]
    return "\n".join(f"{name + ':':19}{value}" for name, value in rows)
