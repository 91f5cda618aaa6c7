"""VoxEngine on the transport of ``voxengine[fast]``."""

from __future__ import annotations

import voxengine_websockets as plain

PIP = ["voxengine[fast]", "voxengine-openai"]
DISTS = ["voxengine", "voxengine-openai", "picows"]


class Session(plain.Session):
    """One engine."""

    transport = "picows"
