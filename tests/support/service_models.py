"""The service model of an older and of a newer SDK: the installed one without and with what is new to it.

What is new is in `newer_service_model.json`, as botocore 1.44 has it, without its documentation.
"""

import atexit
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from botocore.loaders import Loader

from batch_snapshot.operations import SERVICE

Sdk = Literal["older", "newer"]

_NEW = json.loads(Path(__file__).with_name("newer_service_model.json").read_text("utf-8"))


def service_model(sdk: Sdk) -> dict[str, Any]:
    model: dict[str, Any] = json.loads(json.dumps(Loader().load_service_model(SERVICE, "service-2")))
    shapes = model["shapes"]
    if sdk == "newer":
        model["operations"] |= _NEW["operations"]
        shapes |= _NEW["shapes"]
        for name, values in _NEW["values"].items():
            shapes[name]["enum"] = values
    for name in () if sdk == "newer" else _NEW["operations"]:
        model["operations"].pop(name, None)
    for name, members in _NEW["members"].items():
        old = {key: value for key, value in shapes[name]["members"].items() if key not in members}
        shapes[name]["members"] = old | (members if sdk == "newer" else {})
    return model


@cache
def data_path(sdk: Sdk) -> str:
    """What AWS_DATA_PATH must be so that a loader finds the model."""
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    version = Loader().determine_latest_version(SERVICE, "service-2")
    path = Path(folder.name, SERVICE, version, "service-2.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(service_model(sdk)), "utf-8")
    return folder.name
