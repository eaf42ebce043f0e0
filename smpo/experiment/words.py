"""What other frameworks call our settings."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ALSO_CALLED"]

ALSO_CALLED: Mapping[str, str] = {
    "learning_rate": "train.lr", "lr_max": "train.lr", "max_lr": "train.lr", "batch_size": "train.batch",
    "train_batch_size": "train.batch", "global_batch": "train.batch", "global_batch_size": "train.batch",
    "per_device_train_batch_size": "runtime.micro_batch", "per_device_batch_size": "runtime.micro_batch",
    "micro_batch_size": "runtime.micro_batch", "max_steps": "train.steps", "max_train_steps": "train.steps",
    "num_steps": "train.steps", "updates": "train.steps", "iterations": "train.steps",
    "lr_scheduler": "train.schedule", "lr_scheduler_type": "train.schedule", "scheduler": "train.schedule",
    "warmup_steps": "train.warmup", "lr_warmup_steps": "train.warmup", "max_grad_norm": "train.clip",
    "grad_clip": "train.clip", "gradient_clipping": "train.clip", "mixed_precision": "train.precision",
    "dtype": "train.precision", "ema_decay": "train.ema", "use_ema": "train.ema", "random_flip": "train.flip",
    "proportion_empty_prompts": "train.prompt_dropout", "caption_dropout": "train.prompt_dropout",
    "optimizer": "train.optimiser", "beta_dpo": "objective.beta", "dpo_beta": "objective.beta",
    "loss": "objective", "loss_type": "objective", "method": "objective", "algorithm": "objective",
    "dataset": "data", "dataset_name": "data", "datasets": "data", "train_data_dir": "data.path",
    "pretrained_model_name_or_path": "model.weights", "model_name": "model.weights",
    "checkpoint": "model.weights", "reward_model": "reward", "scorer": "reward",
    "guidance_scale": "evaluate.guidance", "cfg": "evaluate.guidance", "cfg_scale": "evaluate.guidance",
    "num_inference_steps": "evaluate.steps", "eval": "evaluate", "evaluation": "evaluate",
    "num_gpus": "runtime.devices", "num_processes": "runtime.devices", "gpus": "runtime.devices",
    "world_size": "runtime.devices", "save_steps": "runtime.checkpoint_every",
    "checkpointing_steps": "runtime.checkpoint_every", "save_total_limit": "runtime.keep",
    "load_best_model_at_end": "runtime.keep_best",
    "metric_for_best_model": "runtime.keep_best",
    "logging_steps": "runtime.log_every", "output_dir": "runtime.runs", "cache_dir": "runtime.cache",
    "tracking_uri": "runtime.tracking", "experiment": "name", "experiment_name": "name", "run_name": "name",
    "description": "notes", "defaults": "extends", "_base_": "extends", "base": "extends",
    "inherit": "extends", "imports": "uses",
    "gradient_accumulation_steps": "it follows from `train.batch`, `runtime.devices` and `runtime.micro_batch`",
    "accumulate": "it follows from `train.batch`, `runtime.devices` and `runtime.micro_batch`",
    "epochs": "length is counted in updates: `train.steps`",
    "num_train_epochs": "length is counted in updates: `train.steps`",
    "report_to": "runs report to MLflow: `runtime.tracking`", "_target_": "a component is named by `use:`",
    "class_path": "a component is named by `use:`", "init_args": "settings stand beside `use:`",
    "runtime.prompts_once": "this setting was removed: no measurement showed a gain",
    "runtime.fused_qkv": "this setting was removed: no measurement showed a gain",
    "ladder": "it is called `ablation`, and its `rungs` are `variants`",
    "inversion.precision": "8-bit inversion was removed: inversions run in `train.precision`",
}  # fmt: skip
"""Each word, or the path of a setting that was removed, and what it is here: the path of a setting, or a sentence. For
errors only."""
