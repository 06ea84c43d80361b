"""One installation, many configurations: a manager starts a user endpoint for each, and every task ends.

The manager has no privilege here, so all of it runs as one account.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from one_account import Account, Manager, account_for

from farcall import Executor
from farcall.testing.functions import by_value
from farcall.testing.processes import ProcessSystem, process_system

pytestmark = [pytest.mark.xdist_group("multi-user"), pytest.mark.timeout(300)]

TIMEOUT_S = 90.0

TEMPLATE = """\
engine:
  type: ProcessPoolEngine
  max_workers: {{ WORKERS | default(1) }}
idle_heartbeats_soft: 10
{% if SETUP is defined %}
endpoint_setup: {{ SETUP }}
{% endif %}
"""


@by_value
def where() -> tuple[int, int, str]:
    import os

    return os.getuid(), os.getppid(), os.getcwd()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessSystem]:
    with process_system(tmp_path_factory.mktemp("mu")) as running:
        yield running


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with account_for(tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture(scope="module")
def site(system: ProcessSystem, account: Account) -> Iterator[Manager]:
    manager = Manager(system, account)
    manager.write(config__yaml="display_name: One account\n", user_config_template__yaml__j2=TEMPLATE)
    manager.start()
    yield manager
    manager.stop()


def test_a_task_runs_in_a_user_endpoint_made_of_the_template(site: Manager) -> None:
    with Executor(endpoint_id=site.id, user_endpoint_config={"WORKERS": 1}) as ex:
        uid, _, _ = ex.submit(where).result(TIMEOUT_S)
    assert uid == (site.account.uid or os.getuid())
