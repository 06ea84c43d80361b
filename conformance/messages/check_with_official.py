"""Read our messages with the released `globus-compute-common`: stdin is one JSON array of latin-1 message texts.

Prints a JSON array of [type, data] as that package understood them. Run in the venv that has the package.
"""

import json
import sys

from globus_compute_common import messagepack as mp

understood = []
for text in json.load(sys.stdin):
    message = mp.unpack(text.encode("latin-1"))
    understood.append([message.message_type, json.loads(mp.pack(message)[1:])["data"]])
print(json.dumps(understood))
