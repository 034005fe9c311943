"""The one file that knows TRL: our settings as an SFTConfig, and an SFTTrainer that takes shared contexts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl import SFTConfig, SFTTrainer

from data_builders.errors import RagFtError
from rag_ft.models.settings import LoraSettings
from rag_ft.training.collate import shared_attention
from rag_ft.training.rows import IGNORED
from rag_ft.training.settings import TrainingSettings


@dataclass(frozen=True)
class TrainerFacts:
    """What the trainer's configuration takes from outside the `training` section.

    `dtype` is the type of the base weights; `watch` is whether there are validation rows; `ordered` is whether rows
    are trained in the order they were written (a curriculum).
    """

    name: str
    folder: Path
    seed: int
    dtype: str
    watch: bool
    show_bar: bool
    ordered: bool = False


def sft_config(settings: TrainingSettings, facts: TrainerFacts) -> SFTConfig:
    """Return the SFTConfig of a recipe. Fields under `training.trainer` win over the defaults set here.

    Adapters are kept in float32 and multiplied in the type of the base weights.
    """
    import torch

    cuda = torch.cuda.is_available()
    fields: dict[str, Any] = {
        "output_dir": str(facts.folder),
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,  # a share of all steps
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "gradient_checkpointing": cuda,  # on the CPU memory is not the limit, time is
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


def lora_config(settings: LoraSettings) -> Any:
    """Return the PEFT configuration of a recipe."""
    from peft import LoraConfig

    modules = settings.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        # PEFT reads a text other than all-linear as a regular expression
        target_modules=modules if modules == "all-linear" else [modules] if isinstance(modules, str) else list(modules),
    )


class SharedContextTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer for token rows; batches with `lengths` are shared contexts and get their own attention mask.

    Inherits because Trainer offers no other seam for what stands between a batch and the loss.
    """

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Expand `lengths` to mask and positions on the device, then compute TRL's loss, or ours without Triton."""
        tokens = int(self.accelerator.gather(inputs["attention_mask"].sum()).sum())
        lengths = inputs.pop("lengths", None)
        if lengths is not None:
            mask, positions = shared_attention(lengths, inputs["input_ids"].shape[1], model_dtype(self.model))
            inputs = {**inputs, "attention_mask": mask, "position_ids": positions}
        mode = "train" if self.model.training else "eval"
        seen = int(vars(self)["_total_train_tokens"])
        if self.args.device.type == "cuda":
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        else:
            loss, outputs, accuracy = loss_at_labels(model, inputs, num_items_in_batch)
            if num_items_in_batch is not None and self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes  # the gradient is averaged over processes, the count not
            self._metrics[mode]["mean_token_accuracy"].append(accuracy)
            loss = (loss, outputs) if return_outputs else loss
        if mode == "train":  # TRL counts the cells of a 4-D mask
            self._total_train_tokens = seen + tokens
            self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
        return loss

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
