"""A client of `rayseg serve`: one image in, its `Instances` out; batches started, watched and cancelled.

    with Client("http://127.0.0.1:8000") as client:
        found = client.predict("photo.jpg", score_threshold=0.5)
        found.instances, found.names

`AsyncClient` has the same methods, awaited. Whoever is told to come later (429, 503) or meets a broken connection tries
again for `retry.total_s` seconds; all else, and the end of that, is an `EndpointError`. Loads neither torch nor ray.
"""

from rayseg.client.answers import Batch, Model, Prediction
from rayseg.client.clients import AsyncClient, Client
from rayseg.errors import EndpointError

__all__ = ["AsyncClient", "Batch", "Client", "EndpointError", "Model", "Prediction"]
