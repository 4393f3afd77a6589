"""Serialization of arrays as safetensors: without pickle, and deterministic."""

import json
from collections.abc import Mapping

import numpy as np
import safetensors
import safetensors.numpy

from jobs.common import shapes
from jobs.common.errors import MachineError, UserError

METADATA = "mrigan"


def to_bytes(arrays: Mapping[str, np.ndarray], meta: Mapping[str, str]) -> bytes:
    """Return `arrays` and the text `meta` as one safetensors file (https://github.com/huggingface/safetensors)."""
    ordered = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    # Only one entry, since the library writes several entries in an order that differs between processes.
    return safetensors.numpy.save(ordered, metadata={METADATA: json.dumps(dict(meta), sort_keys=True)})


def from_bytes(data: bytes, what: str = "file") -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the metadata of a safetensors file; `what` names it in the message.

    Raises MachineError if the bytes are truncated or no safetensors file.
    """
    try:
        arrays = safetensors.numpy.load(data)
        header = int.from_bytes(data[:8], "little")
        text = json.loads(data[8 : 8 + header]).get("__metadata__", {}).get(METADATA, "{}")
        meta = shapes.checked(dict[str, str], json.loads(text))
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise MachineError(f"{what} is damaged ({error}): delete it and run again") from error
    return arrays, meta


def model_arrays(model, prefix: str = "") -> dict[str, np.ndarray]:
    """Return every variable of a Keras model (weights, moving statistics, seed states) by position and path."""
    return {
        f"{prefix}{index:04d}:{variable.path}": np.asarray(variable.value)
        for index, variable in enumerate(model.variables)
    }


def load_model_arrays(model, arrays: Mapping[str, np.ndarray], prefix: str = "") -> None:
    """Set every variable of a Keras model from what `model_arrays` returned for one of the same structure.

    Only positions and shapes must agree, since Keras numbers layer names by the layers built before.
    Raises UserError if the number of variables or a shape differs.
    """
    stored = [arrays[name] for name in sorted(arrays) if name.startswith(prefix)]
    variables = model.variables
    if [value.shape for value in stored] != [tuple(variable.shape) for variable in variables]:
        raise UserError("the stored weights belong to another network: use the settings of their training")
    for variable, value in zip(variables, stored, strict=True):
        variable.assign(value)
