"""tritonclient's two clients against an address: run by the Python of an environment of its own.

Prints one line of JSON: what each client got.
"""

import json
import sys

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http

address, count = sys.argv[1], int(sys.argv[2])
values = np.array([[1.0, 2.0]], dtype=np.float32)
results: dict[str, list[float]] = {}
for kind, library in (("http", over_http), ("grpc", over_grpc)):
    client = library.InferenceServerClient(address)
    assert client.is_server_ready()
    assert client.is_model_ready("sum")
    given = library.InferInput("x", list(values.shape), "FP32")
    if kind == "http":
        given.set_data_from_numpy(values, binary_data=False)
    else:
        given.set_data_from_numpy(values)
    results[kind] = [float(client.infer("sum", [given]).as_numpy("total").ravel()[0]) for _ in range(count)]
    client.close()
print(json.dumps(results))
