"""The one file that knows TRL: our settings as an SFTConfig, and an SFTTrainer that takes shared contexts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trl import SFTConfig, SFTTrainer

from rag_ft.models.settings import LoraSettings
from rag_ft.training.collate import shared_attention
from rag_ft.training.settings import TrainingSettings


def sft_config(settings: TrainingSettings, folder: Path, seed: int, *, show_bar: bool) -> SFTConfig:
    """Return the SFTConfig of a recipe. Fields under `training.trainer` win over the defaults set here."""
    import torch

    cuda = torch.cuda.is_available()
    fields: dict[str, Any] = {
        "output_dir": str(folder),
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,  # a share of all steps
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "gradient_checkpointing": cuda,  # on the CPU memory is not the limit, time is
        "bf16": cuda and torch.cuda.is_bf16_supported(),
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "report_to": list(settings.report_to) or "none",
        "seed": seed,
        "data_seed": seed,
        "disable_tqdm": not show_bar,
        **settings.trainer,
    }
    ours = {"max_length": None, "remove_unused_columns": False, "dataset_kwargs": {"skip_prepare_dataset": True}}
    return SFTConfig(**fields | ours)


def lora_config(settings: LoraSettings) -> Any:
    """Return the PEFT configuration of a recipe."""
    from peft import LoraConfig

    modules = settings.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
    )


class SharedContextTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer for token rows; batches with `lengths` are shared contexts and get their own attention mask.

    Inherits because Trainer offers no other seam for what stands between a batch and the loss.
    """

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Expand `lengths` to mask and positions on the device, then leave the loss to TRL."""
        tokens = int(inputs["attention_mask"].sum())
        lengths = inputs.pop("lengths", None)
        if lengths is not None:
            dtype = next(model.parameters()).dtype
            mask, positions = shared_attention(lengths, inputs["input_ids"].shape[1], dtype)
            inputs = {**inputs, "attention_mask": mask, "position_ids": positions}
        seen = int(vars(self)["_total_train_tokens"])
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if lengths is not None and self.model.training:  # TRL counted the cells of the mask
            self._total_train_tokens = seen + tokens
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return loss

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: the card is made of recipe, manifests and scores at the end (rag_ft/export/card.py)."""
