"""`rag_ft.train` under FSDP2 on CPUs. accelerate takes GPUs only for it; torch's fully_shard also works on CPUs.

Run by `accelerate launch`; everything but the name of the device kind is as on GPUs.
"""

import sys
from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from rag_ft.train import run

_begin = PartialState.__init__


def _as_accelerators(self: Any, *told: Any, **named: Any) -> None:
    _begin(self, *told, **named)
    if self.distributed_type == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_XPU


if __name__ == "__main__":
    PartialState.__init__ = _as_accelerators
    sys.exit(run())
