"""Make `import lerobot` work where torchvision or transformers do not fit the installed torch."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import types
from typing import Any

__all__ = ["prepare"]


def prepare() -> None:
    """Put empty stand-ins in the places of torchvision and transformers, unless they work.

    LeRobot's datasets and normalizers import names of them, and call none.
    """
    transforms = (".transforms", ".transforms.functional")
    versions = (".transforms.v2", ".transforms.v2.functional")
    if not _works("torchvision", "ops"):
        for name in ("", *transforms, *versions):
            _stand_in(f"torchvision{name}")
    if not _works("transformers", "AutoProcessor"):
        _stand_in("transformers")


def _works(package: str, name: str) -> bool:
    try:
        getattr(importlib.import_module(package), name)
    except (ImportError, AttributeError, RuntimeError):  # not there, or built for another torch
        for each in [each for each in sys.modules if each.split(".")[0] == package]:
            del sys.modules[each]
        return False
    return True


def _stand_in(name: str) -> None:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__path__ = []
    module.__dict__["__getattr__"] = _class_named
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


def _class_named(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _to_tensor() if name == "ToTensor" else type(name, (), {})


def _to_tensor() -> type:
    """Return what LeRobot's dataset makes of an image that it loads."""
    import numpy as np
    import torch

    class ToTensor:
        def __call__(self, image: Any) -> Any:
            return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255

    return ToTensor
