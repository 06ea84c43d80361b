"""Record golden message vectors with the released `globus-compute-common` package (run it in a venv of its own).

    python -m venv /tmp/official && /tmp/official/bin/pip install globus-compute-common==1.0.0
    /tmp/official/bin/python conformance/messages/record_official.py > conformance/messages/official.json

Each vector: `type`, `bytes` (latin-1 text of the packed message) and `data` (the members as JSON). Only the
package's public functions are called; nothing of its sources is in here.
"""

import json
import uuid
from importlib.metadata import version

from globus_compute_common import messagepack as mp
from globus_compute_common.messagepack import message_types as mt

TASK = uuid.UUID("11111111-2222-4333-8444-555555555555")
ENDPOINT = uuid.UUID("99999999-8888-4777-8666-555555555555")


def transition(state: str, actor: str) -> dict[str, object]:
    return {"timestamp": 1_700_000_000_123_456_789, "state": state, "actor": actor}


CASES = [
    mt.Task(task_id=TASK, task_buffer="6\n11\n[7]"),
    mt.Task(task_id=TASK, container_id=ENDPOINT, task_buffer="5\n11\n{}äö€😀"),
    mt.Result(task_id=TASK, data="11\n21"),
    mt.Result(
        task_id=TASK,
        data="00\ngASVBQAAAAAAAABLB4WULg==\n",
        details={"os": "Linux", "python_version": "3.11.7", "dill_version": "0.3.9", "endpoint_id": str(ENDPOINT)},
        task_statuses=[transition("execution-start", "worker"), transition("execution-end", "worker")],
    ),
    mt.Result(
        task_id=TASK,
        data="Traceback (most recent call last):\n  ZeroDivisionError: division by zero",
        error_details={"code": "RemoteExecutionError", "user_message": "division by zero"},
        task_statuses=[transition("execution-start", "worker"), transition("execution-end", "worker")],
    ),
    mt.EPStatusReport(endpoint_id=ENDPOINT, global_state={"heartbeat_period": 30}, task_statuses={}),
    mt.EPStatusReport(
        endpoint_id=ENDPOINT,
        global_state={"active": False, "heartbeat_period": 30.0, "total_workers": 4, "node_info": {}},
        task_statuses={str(TASK): [transition("running", "endpoint")]},
    ),
    mt.EPStatusReport(
        endpoint_id=ENDPOINT, global_state={"error": "cannot start", "heartbeat_period": 3}, task_statuses={}
    ),
    mt.TaskCancel(task_id=TASK),
]

vectors = []
for message in CASES:
    packed = mp.pack(message)
    vectors.append(
        {"type": message.message_type, "bytes": packed.decode("latin-1"), "data": json.loads(packed[1:])["data"]}
    )
print(
    json.dumps({"package": f"globus-compute-common {version('globus-compute-common')}", "vectors": vectors}, indent=1)
)
