"""The one file that knows TRL: our settings as an SFTConfig, and an SFTTrainer that takes shared contexts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trl import SFTConfig, SFTTrainer

from data_builders.errors import RagFtError
from rag_ft.training.collate import shared_attention
from rag_ft.training.rows import IGNORED
from rag_ft.training.settings import TrainingSettings
from rag_ft.training.stages import Stage


@dataclass(frozen=True)
class TrainerFacts:
    """What the trainer's configuration takes from outside the `training` section.

    `dtype` is the type of the base weights; `watch` is whether there are validation rows; `ordered` is whether rows
    are trained in the order they were written (a curriculum).
    """

    name: str
    seed: int
    dtype: str
    watch: bool
    show_bar: bool
    ordered: bool = False


def sft_config(settings: TrainingSettings, stage: Stage, facts: TrainerFacts) -> SFTConfig:
    """Return the SFTConfig of a stage. Fields under `training.trainer` win over the defaults set here.

    Adapters are kept in float32 and multiplied in the type of the base weights.
    """
    import torch

    cuda = torch.cuda.is_available()
    fields: dict[str, Any] = {
        "output_dir": str(stage.checkpoints),
        "num_train_epochs": stage.epochs,
        "max_steps": stage.max_steps or -1,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,  # a share of all steps
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "gradient_checkpointing": recomputes(settings),
        "use_cpu": not cuda,
        "bf16": facts.dtype == "bfloat16",
        "fp16": facts.dtype == "float16",
        "dataloader_pin_memory": cuda,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # would log 0 for a loss that is not a number, and the guard would sleep
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "run_name": facts.name,
        "eval_strategy": "steps" if facts.watch else "no",
        "eval_steps": settings.save_steps,
        "prediction_loss_only": True,
        "report_to": list(settings.report_to) or "none",
        "seed": facts.seed,
        "data_seed": facts.seed,
        "disable_tqdm": not facts.show_bar,
        "train_sampling_strategy": "sequential" if facts.ordered else "random",
        **settings.trainer,
    }
    ours = {"max_length": None, "remove_unused_columns": False, "dataset_kwargs": {"skip_prepare_dataset": True}}
    try:
        return SFTConfig(**fields | ours)
    except (TypeError, ValueError) as error:
        raise RagFtError(f"training.trainer holds a value TRL does not take: {str(error).splitlines()[0]}") from error


def recomputes(settings: TrainingSettings) -> bool:
    """Tell whether activations are computed again; by default on CUDA, as on a CPU memory is not the limit, time is."""
    import torch

    told = settings.gradient_checkpointing
    return torch.cuda.is_available() if told is None else told


class SharedContextTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer for token rows; batches with `lengths` are shared contexts and get their own attention mask.

    Inherits because Trainer offers no other seam for what stands between a batch and the loss.
    """

    validate: Callable[[Any], dict[str, float]] | None = None
    """Measures the model beside the loss of the validation rows."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Expand `lengths` to mask and positions on the device, then compute the loss."""
        tokens = int(self.accelerator.gather(inputs["attention_mask"].sum()).sum())
        lengths = inputs.pop("lengths", None)
        if lengths is not None:
            mask, positions = shared_attention(lengths, inputs["input_ids"].shape[1], model_dtype(self.model))
            inputs = {**inputs, "attention_mask": mask, "position_ids": positions}
        mode = "train" if self.model.training else "eval"
        seen = int(vars(self)["_total_train_tokens"])
        loss, outputs, accuracy = loss_at_labels(model, inputs, num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # the gradient is averaged over processes, the count not
        self._metrics[mode]["mean_token_accuracy"].append(accuracy)
        if mode == "train":
            self._total_train_tokens = seen + tokens
            self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the loss of the validation rows, then what `validate` measures, under the same prefix."""
        output = super().evaluation_loop(*args, **kwargs)
        if self.validate is not None:
            output.metrics.update({f"eval_{name}": value for name, value in self.validate(self.model).items()})
        return output

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: the card is made of recipe, manifests and scores at the end (rag_ft/export/card.py)."""


def model_dtype(model: Any) -> Any:
    """Return the dtype of the base weights; adapters may be kept in another."""
    return model.get_input_embeddings().weight.dtype


def loss_at_labels(model: Any, inputs: dict[str, Any], num_items_in_batch: Any) -> tuple[Any, Any, float]:
    """Return mean token loss, model outputs and token accuracy, with logits only where a label follows.

    TRL 1.15 computes its loss in a Triton kernel, which has no CPU form. Logits of every position would cost a
    fifth of the step, since only a few tokens of a long row carry loss.
    """
    import torch

    labels = inputs["labels"][:, 1:]
    keep = (labels != IGNORED).any(dim=0).nonzero().squeeze(1)
    outputs = model(**{k: v for k, v in inputs.items() if k != "labels"}, logits_to_keep=keep, use_cache=False)
    kept = labels[:, keep].flatten()
    logits = outputs.logits.float().flatten(0, 1)
    count = (kept != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
    total = torch.nn.functional.cross_entropy(logits, kept, ignore_index=IGNORED, reduction="sum")
    with torch.no_grad():
        right = (logits.argmax(dim=-1) == kept).sum() / (kept != IGNORED).sum().clamp(min=1)
    return total / count, outputs, float(right)
