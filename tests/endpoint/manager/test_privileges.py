"""Every single thing that can be wrong after the drop is noticed."""

import pytest

from farcall.endpoint.manager.accounts import LocalAccount
from farcall.endpoint.manager.privileges import faults

ACCOUNT = LocalAccount(name="ann", uid=1001, gid=1002, groups=(1002, 2000), home="/", shell="", gecos="")
GOOD = """Name:\tpython3
Umask:\t0077
Uid:\t1001\t1001\t1001\t1001
Gid:\t1002\t1002\t1002\t1002
Groups:\t1002 2000 
Threads:\t1
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t000001ffffffffff
CapAmb:\t0000000000000000
NoNewPrivs:\t1
"""  # noqa: W291 - so the kernel writes it


def test_a_process_as_it_should_be_has_no_faults() -> None:
    assert faults(GOOD, ACCOUNT, (2000, 1002), keeps_helpers=False) == []
    assert faults(GOOD.replace("NoNewPrivs:\t1", "NoNewPrivs:\t0"), ACCOUNT, (1002, 2000), keeps_helpers=True) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("Uid:\t1001\t1001\t1001\t1001", "Uid:\t1001\t1001\t0\t1001"),
        ("Uid:\t1001\t1001\t1001\t1001", "Uid:\t1001\t1001\t1001\t0"),
        ("Gid:\t1002\t1002\t1002\t1002", "Gid:\t1002\t1002\t0\t1002"),
        ("Groups:\t1002 2000", "Groups:\t0 1002 2000"),
        ("Groups:\t1002 2000", "Groups:\t1002"),
        ("Threads:\t1", "Threads:\t2"),
        *[
            (f"{name}:\t0000000000000000", f"{name}:\t0000000000000080")
            for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")
        ],
        ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
        ("CapEff:\t0000000000000000\n", ""),
    ],
)
def test_each_thing_that_is_wrong_is_named(right: str, wrong: str) -> None:
    assert right in GOOD
    found = faults(GOOD.replace(right, wrong), ACCOUNT, (1002, 2000), keeps_helpers=False)
    assert len(found) == 1
    assert right.partition(":")[0].lower() in found[0].lower()
