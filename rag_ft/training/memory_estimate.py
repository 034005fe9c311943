"""How much memory a training takes on each device, before anything is loaded, and what to change where it is too much.

Weights, gradients and optimizer states are counted exactly from the architecture; activations by a trace of the code
that will run (activations.py). What is left to a rule of thumb is said in `allowance`. GB are 10^9 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from data_builders.errors import RagFtError
from rag_ft.models.settings import ModelSettings, QuantisationSettings
from rag_ft.training.model_shape import ModelShape, model_shape
from rag_ft.training.places import Place
from rag_ft.training.settings import TrainingSettings

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_ADAM = 8.0  # two moments in float32
_STATES = {"adam": _ADAM, "ademamix": 12.0, "lion": 4.0, "rmsprop": 4.0, "adagrad": 4.0, "sgd": 0.0, "adafactor": 0.1}
_QUANTUM = 64  # weights that share a scale in NF4; 256 of their scales share another (QLoRA, section 3)
NEAR = 0.9
REFUSED = 1.5


class NoEstimateError(Exception):
    """Activations cannot be traced: an architecture whose code does not run without values. Stops no training."""


@dataclass(frozen=True)
class Rows:
    """What of the rows costs memory.

    Attributes:
        longest: tokens of the longest.
        labelled: most tokens with loss in one.
        all_tokens: of all rows together.
        several: whether some hold several questions.
    """

    longest: int
    labelled: int
    all_tokens: int
    several: bool


@dataclass(frozen=True)
class Demand:
    """Everything the memory of a training follows from. `shape` belongs to `model`."""

    model: ModelSettings
    training: TrainingSettings
    shape: ModelShape
    rows: Rows
    place: Place

    def having(self, **changes: Any) -> Demand:
        """Return the demand with other settings; model ones count the parameters anew."""
        changed = replace(self, **changes)
        if changed.model != self.model:
            changed = replace(changed, shape=model_shape(changed.model, self.shape.config))
        return changed


@dataclass(frozen=True)
class MemoryEstimate:
    """GB on one device at the worst moment, by cause.

    Attributes:
        weights: base weights as they are stored, shared out where they are sharded.
        adapter: what is added to them.
        gradients, optimizer: of what is trained.
        activations: what layers keep for the backward pass, and what that takes besides.
        mask: attention's, where it is a square of tokens.
        logits: at the tokens with loss, with softmax and gradient.
        allowance: a rule of thumb for what no formula knows: libraries, the CUDA context, holes between tensors.
    """

    weights: float
    adapter: float
    gradients: float
    optimizer: float
    activations: float
    mask: float
    logits: float
    allowance: float

    @property
    def total(self) -> float:
        """Return the sum."""
        return sum(asdict(self).values())

    def line(self) -> str:
        """Return the parts as one line, without what is nothing."""
        parts = [f"{name} {size:.2f}" for name, size in asdict(self).items() if size >= 0.005]
        return f"{self.total:.1f} GB = {' + '.join(parts)}"


def memory_estimate(demand: Demand) -> MemoryEstimate:
    """Estimate the memory of a training on one device."""
    shape, place = demand.shape, demand.place
    compute = _BYTES[compute_dtype(demand)]
    share = place.processes if place.sharding == "weights" else 1
    states = place.processes if place.sharding != "none" else 1
    copies = 2 if place.sharding == "none" and place.processes > 1 else 1  # DDP sends gradients in buckets of their own
    parts = {
        "weights": _weight_bytes(demand) / share + (_gathered_bytes(demand) if share > 1 else 0),
        "adapter": shape.added * 4 / share,
        "gradients": shape.trained * 4 * copies / states,
        "optimizer": shape.trained * state_bytes(demand.training) / states,
        "activations": _activation_bytes(demand),
        "mask": _mask_bytes(demand),
        "logits": _logit_bytes(demand, compute),
    }
    allowance = place.libraries + place.holes * (parts["activations"] + parts["mask"] + parts["logits"])
    return MemoryEstimate(**{name: size / 1e9 for name, size in parts.items()}, allowance=allowance / 1e9)


def compute_dtype(demand: Demand) -> str:
    """Return the type of the products, by name."""
    return demand.place.dtype if demand.model.dtype == "auto" else demand.model.dtype


def stored_dtype(demand: Demand) -> str:
    """Return the type of the weights that are not quantised; those that are trained in full are in float32."""
    return "float32" if demand.model.tuning == "full" else compute_dtype(demand)


def recomputes(demand: Demand) -> bool:
    """Tell whether layers are computed again in the backward pass."""
    told = demand.training.gradient_checkpointing
    return demand.place.kind == "cuda" if told is None else told


def state_bytes(training: TrainingSettings) -> float:
    """Return the bytes of optimizer state for each trained parameter, by the name of the optimizer."""
    name = str(training.trainer.get("optim", "adamw_torch_fused"))
    size = next((size for part, size in _STATES.items() if part in name), _ADAM)
    return size / 4 if "8bit" in name else size / 8 if "4bit" in name else size


def batch_shape(demand: Demand) -> tuple[int, int]:
    """Return (sequences, tokens) of the largest forward pass."""
    training, rows = demand.training, demand.rows
    longest = min(rows.longest, training.max_length)
    if training.batching == "padded":
        return training.batch_size, longest
    each = training.max_length if training.batching == "packed" else longest
    return 1, min(training.batch_size * each, max(rows.all_tokens, longest))


def _quantised_bytes(settings: QuantisationSettings, weights: int, outputs: int) -> float:
    """Return the bytes of quantised layers with their scales."""
    if settings.kind == "int8":
        return weights + 4 * outputs
    scales = weights / _QUANTUM
    return weights / 2 + (scales * (1 + 4 / 256) if settings.double else scales * 4)


def _weight_bytes(demand: Demand) -> float:
    shape, told = demand.shape, demand.model.quantisation
    size = _BYTES[stored_dtype(demand)]
    if told.kind == "none":
        return shape.total * size
    return (shape.total - shape.linear) * size + _quantised_bytes(told, shape.linear, shape.linear_outputs)


def _gathered_bytes(demand: Demand) -> float:
    """Return what sharding gathers for a while: this layer and the next, and embeddings and output layer."""
    shape = demand.shape
    outside = shape.total - shape.layers * shape.per_layer
    return (2 * shape.per_layer + outside) * _weight_bytes(demand) / shape.total


def _attention(demand: Demand) -> str:
    """Return the implementation to trace: all that keep no scores keep what torch's own does."""
    from rag_ft.models.load import attention_name, caps_scores

    choice, capped = demand.model.attention, caps_scores(demand.shape.config)
    if demand.place.kind == "cuda":
        told = attention_name(choice, "cuda", compute_dtype(demand), masked=_masked(demand), capped=capped)
        return "eager" if told == "eager" else "sdpa"
    if choice in ("eager", "flex_attention"):  # which a CPU does not fuse
        return "eager"
    told = attention_name(choice, "cpu", compute_dtype(demand), capped=capped)
    return "sdpa" if "flash" in told else told


def _masked(demand: Demand) -> bool:
    """Tell whether rows stand in one sequence that must not see each other."""
    training = demand.training
    return demand.rows.several or (training.batching != "padded" and batch_shape(demand)[1] > demand.rows.longest)


def _square(demand: Demand) -> bool:
    """Tell whether attention takes a mask over all pairs of tokens that we make."""
    choice = demand.model.attention
    fused = choice == "flex_attention" or (choice == "auto" and demand.place.kind == "cuda")
    return _masked(demand) and not fused


def _activation_bytes(demand: Demand) -> float:
    from rag_ft.training.activations import Pass, activation_bytes

    sequences, tokens = batch_shape(demand)
    compute = compute_dtype(demand)
    forward = Pass(
        rows=sequences,
        tokens=tokens,
        weights=stored_dtype(demand),
        compute=compute,
        attention=_attention(demand),
        recompute=recomputes(demand),
        masked=_square(demand),
    )
    unpacked = demand.shape.largest * _BYTES[compute] if demand.model.quantisation.kind == "nf4" else 0
    try:
        return activation_bytes(demand.model, demand.shape.config, forward, demand.shape.layers) + unpacked
    except Exception as error:  # code of any model runs here, and an estimate is not worth a training
        raise NoEstimateError(f"{type(demand.shape.config).__name__} cannot be traced ({error!r:.120})") from error


def _mask_bytes(demand: Demand) -> float:
    sequences, tokens = batch_shape(demand)
    return sequences * tokens**2 * _BYTES[stored_dtype(demand)] if _square(demand) else 0


def _logit_bytes(demand: Demand, compute: int) -> float:
    """Return the bytes of logits, their gradient, and of softmax and its gradient in float32, chunk by chunk."""
    from rag_ft.training.trainer import CHUNK

    sequences, tokens = batch_shape(demand)
    labelled = demand.rows.labelled
    if demand.training.batching != "padded":
        labelled = labelled * demand.training.batch_size  # packed rows are shorter, their labels not longer
    else:
        labelled = sequences * min(tokens, sequences * labelled)  # a column is kept where any row has a label
    logits = min(labelled, sequences * tokens) * demand.shape.vocabulary
    return logits * 2 * compute + min(logits, CHUNK) * 8


@dataclass(frozen=True)
class Change:
    """A change of settings, what it saves in GB after those before it, and the total that is left."""

    settings: str
    saves: float
    total: float


def changes_to_fit(demand: Demand, available: float) -> list[Change]:
    """Return changes of settings, one upon the other, until the training fits into `available` GB.

    They come in the order of what they cost: time, then rounding, then what is trained, then what the model sees.
    """
    found: list[Change] = []
    total = memory_estimate(demand).total
    for name, change in _CHANGES:
        while total > available and (cheaper := change(demand)) is not None:
            smaller = memory_estimate(cheaper[1]).total
            if smaller > 0.98 * total:
                break
            found.append(Change(f"{name}={cheaper[0]}", total - smaller, smaller))
            total, demand = smaller, cheaper[1]
    return found


def _recompute(demand: Demand) -> tuple[str, Demand] | None:
    if recomputes(demand):
        return None
    return "true", _training(demand, gradient_checkpointing=True)


def _smaller_batch(demand: Demand) -> tuple[str, Demand] | None:
    training = demand.training
    if training.batch_size == 1:
        return None
    accumulation = training.gradient_accumulation * training.batch_size
    changed = _training(demand, batch_size=1, gradient_accumulation=accumulation)
    return f"1 with training.gradient_accumulation={accumulation}", changed


def _adapter_only(demand: Demand) -> tuple[str, Demand] | None:
    return None if demand.model.tuning == "lora" else ("lora", _model(demand, tuning="lora"))


def _half_precision(demand: Demand) -> tuple[str, Demand] | None:
    if compute_dtype(demand) != "float32":
        return None
    return "bfloat16", _model(demand, dtype="bfloat16")


def _four_bits(demand: Demand) -> tuple[str, Demand] | None:
    if demand.model.quantisation.kind == "nf4" or demand.model.tuning == "full":
        return None
    return "nf4", _model(demand, quantisation=QuantisationSettings(kind="nf4"))


def _frozen_embeddings(demand: Demand) -> tuple[str, Demand] | None:
    if not demand.model.lora.train_embeddings or demand.model.tuning == "full":
        return None
    return "false", _model(demand, lora=demand.model.lora.model_copy(update={"train_embeddings": False}))


def _shorter(demand: Demand) -> tuple[str, Demand] | None:
    length = min(demand.training.max_length, demand.rows.longest) // 2
    return None if length < 512 else (str(length), _training(demand, max_length=length))


def _lower_rank(demand: Demand) -> tuple[str, Demand] | None:
    if demand.model.tuning == "full" or demand.model.lora.rank <= 8:
        return None
    return "8", _model(demand, lora=demand.model.lora.model_copy(update={"rank": 8}))


_CHANGES = (
    ("training.gradient_checkpointing", _recompute),
    ("training.batch_size", _smaller_batch),
    ("model.dtype", _half_precision),
    ("model.lora.train_embeddings", _frozen_embeddings),
    ("model.tuning", _adapter_only),
    ("model.quantisation.kind", _four_bits),
    ("training.max_length", _shorter),
    ("model.lora.rank", _lower_rank),
)


def _training(demand: Demand, **changes: Any) -> Demand:
    return demand.having(training=demand.training.model_copy(update=changes))


def _model(demand: Demand, **changes: Any) -> Demand:
    return demand.having(model=demand.model.model_copy(update=changes))


Verdict = Literal["fits", "near", "over", "refused"]


def verdict(total: float, available: float) -> Verdict:
    """Judge an estimate. It is no certainty: only what is half as large again as the memory is refused."""
    if total > REFUSED * available:
        return "refused"
    return "over" if total > available else "near" if total > NEAR * available else "fits"


def advice(changes: Sequence[Change], available: float) -> str:
    """Return one sentence that names the settings to change."""
    if not changes:
        return "no setting makes it smaller: take a smaller model.weights, or several GPUs with --accelerate fsdp2"
    listed = "; then ".join(f"{each.settings} (saves {each.saves:.1f} GB)" for each in changes)
    left = changes[-1].total
    if left <= available:
        return f"set {listed}: {left:.1f} GB are left"
    return (
        f"set {listed}; that still leaves {left:.1f} GB, so take a smaller model.weights, or several GPUs with "
        "--accelerate fsdp2"
    )


def check_memory(demand: Demand) -> str:
    """Compare the estimate with the memory of the device at hand; return a line for the preflight.

    Raises:
        RagFtError: the training needs far more than there is.
    """
    estimate, available = memory_estimate(demand), demand.place.memory
    judged = verdict(estimate.total, available)
    line = f"memory: about {estimate.total:.1f} of {available:.1f} GB ({demand.place.device})"
    if judged == "fits":
        return line
    todo = advice(changes_to_fit(demand, available * NEAR), available)
    if judged == "refused":
        raise RagFtError(
            f"the training needs about {estimate.line()}, but {demand.place.device} has {available:.1f} GB: {todo}."
        )
    return f"{line}: {'that may be too much' if judged == 'over' else 'that is tight'}. If it runs out, {todo}"
