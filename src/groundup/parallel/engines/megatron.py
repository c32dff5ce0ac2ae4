"""Megatron engine: Megatron-Core's GPTModel and schedules with this package's batches and optimizer.

in:  EngineSpec with a decoder of Llama's or Qwen3's shape; the axes `tensor` and `pipeline`
out: MegatronEngine

Shoeybi et al. 2019, https://arxiv.org/abs/1909.08053; Narayanan et al. 2021, https://arxiv.org/abs/2104.04473. The
layers are Megatron-Core's own ("local spec"): neither Apex nor Transformer Engine is needed. The remaining
ranks are data parallel replicas. Snapshots have this package's names and shapes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from groundup.core.errors import GroundupError
from groundup.core.recipe import Recipe
from groundup.model.attention import document_mask
from groundup.parallel.context import ParallelContext
from groundup.parallel.engine import EngineSpec, EngineState
from groundup.parallel.engines._external import (
    init_process_group,
    library,
    refuse_axes,
    refuse_fp8,
    require_adamw,
)
from groundup.parallel.engines._megatron_model import (
    CORE,
    MegatronSlice,
    MegatronTensor,
    check_supported,
    core,
    gpt_model,
    parameter_slices,
)
from groundup.parallel.gradient_clipping import clip_gradients
from groundup.parallel.reduce_metrics import reduce_to_floats
from groundup.parallel.shard import local
from groundup.parallel.sharded_checkpoint import load_sharded


class Megatron(Recipe):
    """Megatron-Core with tensor and pipeline parallel, for Llama and Qwen3, with AdamW."""

    def prepare(self, setup: EngineSpec) -> "MegatronEngine":
        """Build this rank's part of the model, load its weights, and build its optimizer."""
        library(CORE, "megatron")
        refuse_axes(setup, "megatron", frozenset({"tensor", "pipeline"}))
        refuse_fp8(setup, "megatron")
        if setup.hardware.activation_checkpointing != "none":
            raise GroundupError(
                'runtime.activation_checkpointing: the engine "megatron" does not support it here. Set "none"'
            )
        tensor, pipeline = setup.layout.tensor, setup.layout.pipeline
        check_supported(setup.decoder.config, tensor, pipeline)
        require_cuda(setup.hardware.device)
        init_process_group(setup.hardware.device)
        ranks = core("parallel_state")
        ranks.destroy_model_parallel()  # of an earlier training
        ranks.initialize_model_parallel(tensor, pipeline)
        core("tensor_parallel.random").model_parallel_cuda_manual_seed(0)  # no random numbers are used
        model = gpt_model(setup)
        slices = parameter_slices(model, setup.decoder.config, ranks.get_tensor_model_parallel_rank(), tensor)
        masters = [_fp32_master(place.parameter) for place in slices]
        optimizer = setup.build_optimizer(
            (place.parts[0].name, master) for place, master in zip(slices, masters, strict=True)
        )
        require_adamw(optimizer, "megatron", "Muon would take Megatron's joined matrices for one")
        train_engine = MegatronEngine(
            model, slices, masters, optimizer, setup.grad_clip, setup.parallel, setup.hardware.device
        )
        train_engine.fill(lambda part: setup.init_tensor(part.name, part.shape))
        return train_engine


def require_cuda(device: torch.device) -> None:
    """Raises GroundupError on a CPU."""
    if device.type != "cuda":
        raise GroundupError(
            'runtime.engine: the engine "megatron" needs an NVIDIA GPU: Megatron-Core has no CPU support. Use '
            'runtime.engine.use = "native" or "deepspeed"'
        )


def _fp32_master(parameter: nn.Parameter) -> nn.Parameter:
    """The parameter that the optimizer updates: an fp32 copy of a bf16 one, which receives its gradients."""
    if parameter.dtype == torch.float32:
        return parameter
    master = nn.Parameter(parameter.detach().float())

    def hand_over(of: Tensor) -> None:
        assert of.grad is not None
        gradient = of.grad.float()
        master.grad = gradient if master.grad is None else master.grad + gradient
        of.grad = None

    parameter.register_post_accumulate_grad_hook(hand_over)  # type: ignore[no-untyped-call]
    return master


@dataclass
class MegatronEngine:
    """This rank's part of a model that Megatron runs."""

    model: nn.Module
    slices: Sequence[MegatronSlice]
    masters: Sequence[nn.Parameter]
    """the fp32 weights, in the order of `slices`"""
    optimizer: torch.optim.Optimizer
    grad_clip: float
    parallel: ParallelContext
    device: torch.device
    _peak_rates: list[float] = field(init=False)
    _norm: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._peak_rates = [group["lr"] for group in self.optimizer.param_groups]

    def forward_backward(self, micro_batches: Sequence[Any]) -> dict[str, float]:
        """See `TrainEngine`."""
        self.zero_grad()
        loss = self._run_schedule(micro_batches, forward_only=False)
        self._sum_gradients()
        self._norm = self._gradient_norm()
        return reduce_to_floats({"grad_norm": self._norm, "loss": loss}, self.parallel, identical=1)

    def step(self, factor: float) -> None:
        """See `TrainEngine`."""
        if self.grad_clip:
            clip_gradients(self.masters, self.grad_clip, self._norm)
        for group, rate in zip(self.optimizer.param_groups, self._peak_rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()
        self._copy_masters_to_model()

    def zero_grad(self) -> None:
        """See `TrainEngine`."""
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def eval_loss(self, batch: Any) -> Tensor:
        """See `TrainEngine`."""
        return self._run_schedule([batch], forward_only=True)

    def whole_weights(self) -> dict[str, Tensor]:
        """See `TrainEngine`."""
        weights: dict[str, Tensor] = {}
        for held, master in self._unique_slices():
            for part in held.parts:
                tensor = self._local_tensor(part, master)
                weights[part.name] = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        return self.parallel.gather_dicts(weights)

    def snapshot(self) -> EngineState:
        """See `TrainEngine`."""
        tensors: dict[str, Tensor] = {}
        for place, master in self._unique_slices():
            for part in place.parts:
                tensors[f"model.{part.name}"] = self._local_tensor(part, master, keep=True)
                for key, value in self.optimizer.state[master].items():
                    name = f"optimizer.{part.name}.{key}"
                    tensors[name] = (
                        self._local_tensor(part, value, keep=True)
                        if value.dim()
                        else value.to("cpu", copy=True)
                    )
        return EngineState(tensors, {})

    def load(self, folder: Path, numbers: dict[str, Any], weights: bool = True) -> None:
        """See `TrainEngine`."""
        parts = [(part, master) for place, master in self._slices_with_masters() for part in place.parts]
        shards = {part.name: self._local_tensor(part, torch.empty_like(master)) for part, master in parts}
        optimizer_prefixes = {f"optimizer.{name}.": share for name, share in shards.items()}
        named = {f"model.{name}": share for name, share in shards.items()} if weights else {}
        tensors = load_sharded(folder, named, optimizer_prefixes, self.parallel)
        for name, tensor in tensors.items():
            if not name.startswith("optimizer."):
                continue
            about, _, key = name.removeprefix("optimizer.").rpartition(".")
            for part, master in parts:
                if part.name == about and tensor.dim():
                    state = self.optimizer.state[master].setdefault(key, torch.zeros_like(master))
                    _copy_part(part, state, local(tensor))
                elif part.name == about:
                    self.optimizer.state[master][key] = tensor.to(self.device, copy=True)
        if weights:
            self._fill(lambda part: local(tensors[f"model.{part.name}"]))

    def fill(self, weight: Callable[[MegatronTensor], Tensor]) -> None:
        """Set all weights. weight: part -> the whole parameter, on the CPU."""
        rank, ranks = (
            core("parallel_state").get_tensor_model_parallel_rank(),
            self.parallel.axis_size("tensor"),
        )

        def local_weight(part: MegatronTensor) -> Tensor:
            return weight(part) if part.axis is None else weight(part).chunk(ranks, dim=part.axis)[rank]

        self._fill(local_weight)

    def _fill(self, local_weight: Callable[[MegatronTensor], Tensor]) -> None:
        for place, master in self._slices_with_masters():
            master.data.zero_()  # padding rows of the vocabulary stay zero
            for part in place.parts:
                _copy_part(part, master.data, local_weight(part))
        self._copy_masters_to_model()

    def _copy_masters_to_model(self) -> None:
        """Copy the fp32 masters to the model's weights."""
        for place, master in self._slices_with_masters():
            if master is not place.parameter:
                place.parameter.data.copy_(master.data)

    def _slices_with_masters(self) -> list[tuple[MegatronSlice, nn.Parameter]]:
        return list(zip(self.slices, self.masters, strict=True))

    def _unique_slices(self) -> list[tuple[MegatronSlice, nn.Parameter]]:
        """All slices, a tied matrix only once."""
        return [(place, master) for place, master in self._slices_with_masters() if not place.twin]

    def _local_tensor(self, part: MegatronTensor, tensor: Tensor, keep: bool = False) -> Tensor:
        """This rank's shard of a parameter. keep: a copy on the CPU."""
        shape = list(part.shape)
        if part.axis is not None:
            shape[part.axis] = -1
        local_tensor = part.at(tensor.detach()).reshape(shape)
        local_tensor = local_tensor.to("cpu", copy=True).contiguous() if keep else local_tensor.clone()
        if self.parallel.mesh is None or part.axis is None:
            return local_tensor
        stride = torch.empty(part.shape, device="meta").stride()
        return DTensor.from_local(
            local_tensor, self.parallel.mesh["tensor"], [Shard(part.axis)], shape=part.shape, stride=stride
        )

    def _run_schedule(self, micro_batches: Sequence[Any], forward_only: bool) -> Tensor:
        """Run all micro-batches; the sum of their losses on the last stage, zero on others."""
        run = core("pipeline_parallel.schedules").get_forward_backward_func()
        rows, time = micro_batches[0].ids.shape
        losses = run(
            forward_step_func=partial(_forward_step, self.device),
            data_iterator=iter(micro_batches),
            model=self.model,
            num_microbatches=len(micro_batches),
            seq_length=time,
            micro_batch_size=rows,
            forward_only=forward_only,
        )
        return torch.stack([torch.zeros((), device=self.device), *losses]).sum()

    def _sum_gradients(self) -> None:
        """Sum the gradients of weights that several ranks hold."""
        mesh, ranks = self.parallel.mesh, core("parallel_state")
        if mesh is None:
            return
        for place, master in self._slices_with_masters():
            embedding = place.parts[0].name == "model.embed_tokens.weight"
            if place.by_heads:
                dist.all_reduce(master.grad, group=mesh.get_group("tensor"))
            if embedding and self.model.share_embeddings_and_output_weights and self.parallel.pipeline > 1:
                dist.all_reduce(master.grad, group=ranks.get_embedding_group())
            dist.all_reduce(master.grad, group=mesh.get_group("shard"))

    def _gradient_norm(self) -> Tensor:
        """The norm of all gradients together, as if they were on one rank."""
        squares = torch.zeros(2, device=self.device)
        for place, master in self._unique_slices():
            assert master.grad is not None
            squares[int(place.split)] += master.grad.square().sum()
        mesh = self.parallel.mesh
        if mesh is not None:
            dist.all_reduce(squares[1:], group=mesh.get_group("tensor"))
            dist.all_reduce(squares, group=mesh.get_group("pipeline"))
        return squares.sum().sqrt()


def _copy_part(part: MegatronTensor, into: Tensor, local_tensor: Tensor) -> None:
    view = part.at(into)
    view.copy_(local_tensor.view(view.shape))


def _forward_step(
    device: torch.device, micro_batches: Any, model: Any
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]]:
    """Megatron's `forward_step_func`: the next micro-batch through this rank's layers, and the loss function."""
    batch = next(micro_batches)
    ids, segments, weights = batch.ids.to(device), batch.segments.to(device), batch.weights.to(device)
    positions = torch.arange(ids.shape[1], device=device).expand_as(ids)
    # Megatron's mask is True where attention is not allowed.
    out = model(ids, positions, ~document_mask(segments), labels=batch.targets.to(device))

    def loss(of_tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value = (of_tokens.float() * weights).sum()
        return value, torch.tensor(1, dtype=torch.int, device=device), value.detach().clone()

    return out, loss
