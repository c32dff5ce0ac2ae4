"""DeepSpeed engine: ZeRO shards optimizer state, gradients and weights, and can offload them to CPU memory.

in:  EngineSpec with data parallel ranks only
out: DeepSpeedEngine

Rajbhandari et al. 2019, https://arxiv.org/abs/1910.02054; offloading is Ren et al. 2021,
https://arxiv.org/abs/2101.06840. DeepSpeed flattens many parameters into one tensor. Snapshots are gathered
parameter by parameter, so that any engine can read them, and no rank ever holds the whole model.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
import torch.distributed as dist
from pydantic import Field, model_validator
from torch import Tensor, nn

from groundup.core.errors import GroundupError
from groundup.core.recipe import Recipe
from groundup.model.decoder import Decoder
from groundup.model.value_head import ValueModel, decoder_of
from groundup.parallel.context import SINGLE, ParallelContext
from groundup.parallel.engine import EngineSpec, EngineState, Loss
from groundup.parallel.engines._external import (
    init_process_group,
    library,
    refuse_axes,
    refuse_fp8,
    require_adamw,
)
from groundup.parallel.hardware import choose_attention_kernel, prepare_model
from groundup.parallel.reduce_metrics import StepMetrics, accumulate_metrics, reduce_to_floats
from groundup.parallel.sharded_checkpoint import load_sharded

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state of each parameter."""


class DeepSpeed(Recipe):
    """DeepSpeed ZeRO over all ranks, for any architecture, with AdamW."""

    stage: Literal[1, 2, 3] = Field(
        default=3,
        description="ZeRO stage: 1 shards optimizer state, 2 also gradients, 3 also weights",
    )
    offload: Literal["none", "optimizer", "all"] = Field(
        default="none",
        description="what is offloaded to CPU memory: none, optimizer (state), or all (also weights; stage 3)",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.offload == "all" and self.stage < 3:
            raise ValueError(
                f'offload = "all" needs stage = 3: stage {self.stage} keeps all weights on every rank'
            )
        return self

    def prepare(self, setup: EngineSpec) -> "DeepSpeedEngine":
        """Build the model under ZeRO, load its weights, and build its optimizer."""
        if setup.hardware.device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        deepspeed = library("deepspeed", "deepspeed")
        _check_supported(setup)
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        init_process_group(setup.hardware.device)
        deepspeed.init_distributed(verbose=False)
        config = self._config(setup)
        # With stage 3 no rank ever has all weights: each layer is sharded when it is constructed.
        construction = (
            deepspeed.zero.Init(config_dict_or_path=config) if self.stage == 3 else setup.hardware.device
        )
        model = _build_model(setup, construction)
        module = _ModelWithLoss(model, setup.loss)
        if self.stage == 3:
            for parameter in _external_parameters(model):
                deepspeed.zero.register_external_parameter(module, parameter)
        engine = deepspeed.initialize(model=module, optimizer=_optimizer(setup, model), config=config)[0]
        train_engine = DeepSpeedEngine(
            engine, model, setup.hardware.device, setup.parallel, _shapes(setup.model)
        )
        train_engine.fill(lambda name: setup.init_tensor(name, train_engine.shapes[name]))
        return train_engine

    def _config(self, setup: EngineSpec) -> dict[str, Any]:
        """DeepSpeed's config. Gradients are reduced in fp32."""
        cpu = {"device": "cpu", "pin_memory": setup.hardware.device.type == "cuda"}
        zero: dict[str, Any] = {"stage": self.stage, "memory_efficient_linear": False}
        if self.offload != "none":
            zero["offload_optimizer"] = cpu
        if self.offload == "all":
            zero["offload_param"] = cpu
        # Stage 1 keeps weights in fp32: in bf16 it is another implementation, whose gradients can't be read.
        bf16 = setup.hardware.dtype == torch.bfloat16 and self.stage > 1
        return {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,  # the engine marks the end of a step
            "gradient_clipping": setup.grad_clip,
            "bf16": {"enabled": bf16, "check_grad_overflow": True},
            "data_types": {"grad_accum_dtype": "fp32"},
            "communication_data_type": "fp32",
            "zero_optimization": zero,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": sys.maxsize,
        }


class _ModelWithLoss(nn.Module):
    """A model with its loss as one module, so that ZeRO gathers weights in its forward pass."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> tuple[Tensor, StepMetrics]:
        return self.loss(self.model, batch)


@dataclass
class DeepSpeedEngine:
    """A model that DeepSpeed trains."""

    engine: Any
    """deepspeed.DeepSpeedEngine"""
    model: nn.Module
    device: torch.device
    parallel: ParallelContext
    shapes: dict[str, torch.Size]
    """of all parameters, which are empty in the model under ZeRO-3"""
    _peak_rates: list[float] = field(init=False)
    _first_micro_step: int = field(init=False)
    """DeepSpeed's micro-step counter at the start of a step"""
    _steps: float = 0.0

    def __post_init__(self) -> None:
        self._peak_rates = [group["lr"] for group in self._adamw.param_groups]
        self._first_micro_step = self.engine.optimizer.micro_step_id
        self._init_optimizer_state()

    def forward_backward(self, micro_batches: Sequence[Any]) -> dict[str, float]:
        """See `TrainEngine`."""
        self.zero_grad()
        totals: dict[str, Any] = {}
        for index, batch in enumerate(micro_batches):
            self.engine.set_gradient_accumulation_boundary(index == len(micro_batches) - 1)
            value, metrics = self.engine(batch)
            # ZeRO averages over the ranks; our losses are parts of a sum.
            self.engine.backward(value * dist.get_world_size(), scale_wrt_gas=False)
            accumulate_metrics(totals, {"loss": value, **metrics})
        return reduce_to_floats({"grad_norm": self._norm()} | totals, self.parallel, identical=1)

    def step(self, factor: float) -> None:
        """See `TrainEngine`. DeepSpeed clips."""
        for group, rate in zip(self._adamw.param_groups, self._peak_rates, strict=True):
            group["lr"] = rate * factor
        self.engine.step()
        self._steps += 1

    def zero_grad(self) -> None:
        """See `TrainEngine`. DeepSpeed has no method for it: this is what it does where a gradient overflows."""
        zero = self.engine.optimizer
        zero.zero_grad()
        zero.reset_cpu_buffers()
        zero.micro_step_id = self._first_micro_step
        if not self._shards_weights:
            zero.averaged_gradients = dict.fromkeys(zero.averaged_gradients)
            zero.all_grad_tensors = dict.fromkeys(zero.all_grad_tensors)

    @torch.no_grad()
    def eval_loss(self, batch: Any) -> Tensor:
        """See `TrainEngine`."""
        return cast(Tensor, self.engine(batch)[0])

    def whole_weights(self) -> dict[str, Tensor]:
        """See `TrainEngine`."""
        tools = _library()
        return {
            name: tools.safe_get_full_fp32_param(parameter)
            for name, parameter in self.model.named_parameters()
        }

    def snapshot(self) -> EngineState:
        """See `TrainEngine`. Parameters are distributed round-robin over the ranks."""
        tools = _library()
        tensors: dict[str, Tensor] = {}
        for index, (name, parameter) in enumerate(self.model.named_parameters()):
            owned = index % dist.get_world_size() == dist.get_rank()
            parameter_tensors = {f"model.{name}": tools.safe_get_full_fp32_param(parameter)}
            for key in MOMENTS:
                parameter_tensors[f"optimizer.{name}.{key}"] = tools.safe_get_full_optimizer_state(
                    parameter, key
                )
            if owned:
                tensors |= {name: tensor.to("cpu", copy=True) for name, tensor in parameter_tensors.items()}
                tensors[f"optimizer.{name}.step"] = torch.tensor(self._steps)
        return EngineState(tensors, {})

    def load(self, folder: Path, numbers: dict[str, Any], weights: bool = True) -> None:
        """See `TrainEngine`. Every rank reads one parameter after the other and keeps its shard."""
        for name, parameter in self.model.named_parameters():
            optimizer_prefixes = {f"optimizer.{name}.": torch.empty(self.shapes[name])}
            tensors = load_sharded(folder, {}, optimizer_prefixes, SINGLE)
            for key in MOMENTS:
                if f"optimizer.{name}.{key}" in tensors:
                    self._set(parameter, tensors[f"optimizer.{name}.{key}"], key)
            self._steps = float(tensors.get(f"optimizer.{name}.step", self._steps))
        for state in self._adamw.state.values():
            state["step"].fill_(self._steps)
        if weights:
            self.fill(lambda name: self._read(folder, name))

    def fill(self, weight: Callable[[str], Tensor]) -> None:
        """Set all weights, the fp32 masters and the compute copies. weight: name -> the whole tensor, on the CPU."""
        for name, parameter in self.model.named_parameters():
            whole = weight(name)
            self._set(parameter, whole)
            if self._shards_weights:
                with library("deepspeed", "deepspeed").zero.GatheredParameters([parameter], modifier_rank=0):
                    if dist.get_rank() == 0:
                        parameter.data.copy_(whole)
        if not self._shards_weights:
            self.engine.optimizer.update_lp_params()

    @property
    def _adamw(self) -> torch.optim.Optimizer:
        return cast(torch.optim.Optimizer, self.engine.optimizer.optimizer)

    @property
    def _shards_weights(self) -> bool:
        return bool(self.engine.zero_optimization_stage() == 3)

    def _norm(self) -> Tensor:
        """Global gradient norm."""
        if not self._shards_weights:
            norm = self.engine.optimizer.scaled_global_norm()
            return torch.where(norm < 0, torch.nan, norm)  # DeepSpeed's -1 is a norm that isn't finite
        squares = torch.zeros((), device=self.device)
        for parameter in self.model.parameters():
            squares += _library().safe_get_local_grad(parameter).square().sum()
        dist.all_reduce(squares)
        return squares.sqrt()

    def _init_optimizer_state(self) -> None:
        """Create AdamW's state of zeros, which snapshots read and checkpoints fill."""
        zero = self.engine.optimizer
        for flat in (
            zero.fp32_partitioned_groups_flat
            if self._shards_weights
            else zero.single_partition_of_fp32_groups
        ):
            step = torch.zeros((), device=flat.device)
            self._adamw.state[flat] = {"step": step} | {key: torch.zeros_like(flat) for key in MOMENTS}
        if not self._shards_weights:
            zero._lazy_init_hp_params_optimizer_state()  # maps flat pieces to parameters

    def _set(self, parameter: nn.Parameter, whole: Tensor, key: str | None = None) -> None:
        """Set this rank's shard of a weight, or of its optimizer state `key`."""
        tools, value = _library(), whole.to(self.device, torch.float32)
        if not self._shards_weights:
            set_ = tools.safe_set_full_fp32_param if key is None else tools.safe_set_full_optimizer_state
        else:
            set_ = tools.safe_set_local_fp32_param if key is None else tools.safe_set_local_optimizer_state
            size = cast(Any, parameter).ds_tensor.numel()  # the last rank's is padded
            value = value.flatten()[size * dist.get_rank() :][:size]
            value = nn.functional.pad(value, (0, size - value.numel()))
        set_(parameter, value, *(() if key is None else (key,)))

    def _read(self, folder: Path, name: str) -> Tensor:
        named = {f"model.{name}": torch.empty(self.shapes[name])}
        return load_sharded(folder, named, {}, SINGLE)[f"model.{name}"]


def _library() -> Any:
    return library("deepspeed.utils", "deepspeed")


def _check_supported(setup: EngineSpec) -> None:
    refuse_axes(setup, "deepspeed", frozenset())
    refuse_fp8(setup, "deepspeed")
    model = setup.model
    if not isinstance(model, Decoder | ValueModel):
        raise GroundupError(
            'runtime.engine: the engine "deepspeed" trains one model at a time. Use runtime.engine.use = "native"'
        )
    if not all(parameter.requires_grad for parameter in model.parameters()):
        raise GroundupError(
            'runtime.engine: the engine "deepspeed" trains all weights. Set lora_rank = 0, or use '
            'runtime.engine.use = "native"'
        )
    if model.config.induction:
        raise GroundupError(
            'runtime.engine: the engine "deepspeed" can\'t hold the weights of an induction circuit. Set '
            'pretrain.init = "standard", or use runtime.engine.use = "native"'
        )
    moe = model.config.moe
    if moe is not None and moe.balance == "bias":
        raise GroundupError(
            'runtime.engine: the engine "deepspeed" balances experts by a loss only. Set '
            "pretrain.architecture.balance = "
            '"loss", or take runtime.engine.use = "native"'
        )


def _build_model(setup: EngineSpec, construction: Any) -> Decoder | ValueModel:
    """The decoder prepared for the hardware, without weights. construction: context in which it is constructed."""
    assert isinstance(setup.model, Decoder | ValueModel)
    with construction:
        model = type(setup.model)(setup.model.config)
    # Layers are not compiled: ZeRO gathers weights in hooks between them.
    prepare_model(model, replace(setup.hardware, can_compile=False))
    if setup.hardware.device.type == "cuda":
        decoder_of(model).set_attention_kernel(choose_attention_kernel(model.config, setup.hardware)[0])
    return model


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def _external_parameters(model: Decoder | ValueModel) -> Iterator[nn.Parameter]:
    """Parameters that are read outside the forward pass of their own module."""
    for name, parameter in model.named_parameters():
        if "model.layers." not in name:
            yield parameter
    for layer in decoder_of(model).model.layers:
        yield from layer.parameters(recurse=False)


def _optimizer(setup: EngineSpec, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimizer of `model`'s parameters; grouped by the shapes of the spec's model."""
    optimizer = setup.build_optimizer(setup.model.named_parameters())
    require_adamw(optimizer, "deepspeed", "Muon needs whole matrices, and ZeRO has flat pieces")
    names: dict[Tensor, str] = {parameter: name for name, parameter in setup.model.named_parameters()}
    parameters = dict(model.named_parameters())
    for group in optimizer.param_groups:
        group["params"] = [parameters[names[parameter]] for parameter in group["params"]]
    return optimizer
