"""Torch-Pruning 1.6.1 on one network, with every hint that its own examples give.

https://github.com/VainF/Torch-Pruning, examples/timm_models, examples/transformers, examples/LLMs, tests: the layers that make
the outputs are ignored; attention's projections are declared with their heads, and attributes such as `num_heads` and
`head_dim` are set anew afterwards; torchvision's transformers round to heads and get `hidden_dim`; parameters outside layers are
named with their axis; Swin's patch merging has a pruner of its own.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch_pruning as tp
from torch import nn

from _coverage_models import Case

if TYPE_CHECKING:
    from _coverage_check import Record

AMOUNT = 0.5
BATCHES = (2, 3)
# How projections of attention are called, together with what counts their heads.
PROJECTIONS = (
    ("qkv",),
    ("qkv_proj",),
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_lin", "k_lin", "v_lin"),
)
PROJECTIONS += (("q", "k", "v"),)
COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head")


class _Merging(tp.BasePruningFunc):
    """Patch merging of Swin: four neighbours side by side, then a norm and a linear layer."""

    def prune_out_channels(self, layer: nn.Module, idxs: Sequence[int]) -> nn.Module:
        tp.prune_linear_out_channels(layer.reduction, idxs)
        return layer

    def prune_in_channels(self, layer: nn.Module, idxs: Sequence[int]) -> nn.Module:
        width = layer.reduction.in_features // 4
        repeated = [index + part * width for part in range(4) for index in idxs]
        tp.prune_linear_in_channels(layer.reduction, repeated)
        tp.prune_layernorm_out_channels(layer.norm, repeated)
        return layer

    def get_out_channels(self, layer: nn.Module) -> int:
        return layer.reduction.out_features

    def get_in_channels(self, layer: nn.Module) -> int:
        return layer.reduction.in_features // 4


def check_torch_pruning(record: "Record", case: Case, _quick: bool) -> None:
    """Prunes at one half, then runs at two batch sizes with the outputs' shapes kept."""
    from _coverage_check import _check_shapes, _sized, _tensors

    model, inputs = case.model, case.inputs
    record.data["params"] = sum(value.numel() for value in model.parameters())
    with torch.no_grad():
        expected = {batch: _tensors(model(*_sized(inputs, batch))) for batch in BATCHES}

    if record.column("pruned", lambda: _prune(case)) is None:
        return
    record.data["left"] = round(sum(value.numel() for value in model.parameters()) / record.data["params"], 4)

    def runs(batch: int) -> None:
        with torch.no_grad():
            _check_shapes(expected[batch], _tensors(model(*_sized(inputs, batch))))

    for batch in BATCHES:
        record.column(f"runs at batch {batch}", lambda batch=batch: runs(batch))


def _prune(case: Case) -> bool:
    from _coverage_check import _tensors

    model = case.model
    heads: dict[nn.Module, int] = {}
    attentions: list[tuple[nn.Module, str, tuple[str, ...]]] = []
    for module in model.modules():
        count = next((name for name in COUNTS if isinstance(getattr(module, name, None), int)), None)
        names = next(
            (n for n in PROJECTIONS if all(isinstance(getattr(module, one, None), nn.Linear) for one in n)), None
        )
        if (
            count is None and names is not None and hasattr(module, "num_key_value_groups")
        ):  # Llama's keeps it elsewhere
            module.num_heads = module.config.num_attention_heads
            count = "num_heads"
        if count is None or names is None:
            continue
        attentions.append((module, count, names))
        groups = getattr(module, "num_key_value_groups", 1)
        for name in names:
            shared = groups if name in ("k_proj", "v_proj") else 1
            heads[getattr(module, name)] = getattr(module, count) // shared
    ignored: list[Any] = [*case.heads]
    options: dict[str, Any] = {}
    loose: dict[nn.Parameter, int] = {}
    for module in model.modules():
        kind = type(module).__name__
        if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
            ignored.append(module)
        if kind == "VisionTransformer" and hasattr(module, "conv_proj"):  # torchvision's
            options["round_to"] = module.encoder.layers[0].num_heads
            loose |= {module.class_token: 2, module.encoder.pos_embedding: 2}
        if kind == "CNBlock":
            loose[module.layer_scale] = 0
        if kind == "SwinPatchMerging":
            options["customized_pruners"] = {type(module): _Merging()}
            options["root_module_types"] = [nn.Linear, nn.LayerNorm, type(module)]
    if loose:
        options["unwrapped_parameters"] = list(loose.items())  # pairs, though it is annotated as a dictionary
    pruner = tp.pruner.MagnitudePruner(
        model,
        case.inputs if len(case.inputs) > 1 or not case.inputs[0].is_floating_point() else case.inputs[0],
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=AMOUNT,
        ignored_layers=ignored,
        num_heads=heads,
        output_transform=lambda output: sum(v.float().sum() for v in _tensors(output) if v.is_floating_point()),
        **options,
    )
    pruner.step()
    for module, count, names in attentions:
        _resize_attention(module, count, names, pruner.num_heads)
    for module in model.modules():
        if type(module).__name__ == "VisionTransformer" and hasattr(module, "conv_proj"):
            module.hidden_dim = module.conv_proj.out_channels
    return True


def _resize_attention(module: nn.Module, count: str, names: tuple[str, ...], heads: dict[nn.Module, int]) -> None:
    """Sets the sizes that attention keeps beside its layers, as the examples do after pruning."""
    first = getattr(module, names[0])
    width = first.out_features // (3 if len(names) == 1 else 1)
    setattr(module, count, heads[first])
    sizes = {"head_dim": width // heads[first], "attention_head_size": width // heads[first]}
    sizes |= dict.fromkeys(("all_head_size", "attn_dim", "inner_dim", "dim"), width)
    for name, size in sizes.items():
        if isinstance(getattr(module, name, None), int):
            setattr(module, name, size)
