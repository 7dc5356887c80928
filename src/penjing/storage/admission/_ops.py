"""The ops that a file may hold, by exact overload: a positive list, so that an op of tomorrow's PyTorch isn't in it.

An op stands here if a captured network may hold it and its kernel checks what it is given, or if `_arguments` and `_values`
check that for it. Before adding one, read its CPU kernel: does it trust an index, a size, an enum, an offset, the length of a
list? Does the size of its result depend on values (then no bound can be given before it runs)? How much does it compute?
Ops that have a rule or a cost and are not here stand in `REFUSED` with the reason.
"""

from typing import Any

import torch
from torch._ops import OpOverload
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers torch.ops.quantized_decomposed

_ELEMENTWISE = """
abs absolute acos acosh arccos arccosh asin asinh arcsin arcsinh atan atanh arctan arctanh atan2 arctan2 add.Tensor add.Scalar
addcdiv addcmul alpha_dropout angle bernoulli bernoulli.p bitwise_and.Tensor bitwise_and.Scalar bitwise_and.Scalar_Tensor
bitwise_or.Tensor bitwise_or.Scalar bitwise_or.Scalar_Tensor bitwise_xor.Tensor bitwise_xor.Scalar bitwise_xor.Scalar_Tensor
bitwise_not bitwise_left_shift.Tensor bitwise_left_shift.Tensor_Scalar bitwise_right_shift.Tensor
bitwise_right_shift.Tensor_Scalar __and__.Tensor __and__.Scalar __or__.Tensor __or__.Scalar __xor__.Tensor __xor__.Scalar
__lshift__.Tensor __lshift__.Scalar __rshift__.Tensor __rshift__.Scalar
ceil celu clamp clamp.Tensor clamp_max clamp_max.Tensor clamp_min clamp_min.Tensor clip clip.Tensor clone complex conj
conj_physical resolve_conj resolve_neg contiguous copy copysign.Tensor copysign.Scalar cos cosh deg2rad detach digamma
div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode divide.Tensor divide.Scalar divide.Tensor_mode divide.Scalar_mode dropout
elu eq.Tensor eq.Scalar erf erfc erfinv exp exp2 expm1 feature_alpha_dropout feature_dropout fill.Scalar fill.Tensor fix
float_power.Tensor_Tensor float_power.Tensor_Scalar float_power.Scalar floor floor_divide floor_divide.Scalar fmax fmin
fmod.Tensor fmod.Scalar frac ge.Tensor ge.Scalar greater.Tensor greater.Scalar greater_equal.Tensor greater_equal.Scalar gelu
gt.Tensor gt.Scalar hardshrink hardsigmoid hardswish hardtanh heaviside hypot i0 imag isclose isfinite isinf isnan isneginf
isposinf ldexp.Tensor le.Tensor le.Scalar leaky_relu lerp.Scalar lerp.Tensor less.Tensor less.Scalar less_equal.Tensor
less_equal.Scalar lgamma log log10 log1p log2 log_sigmoid logaddexp logaddexp2 logical_and logical_not logical_or logical_xor
logit lt.Tensor lt.Scalar masked_fill.Scalar masked_fill.Tensor maximum minimum max.other min.other mish mul.Tensor mul.Scalar
multiply.Tensor multiply.Scalar nan_to_num ne.Tensor ne.Scalar neg negative not_equal.Tensor not_equal.Scalar polar positive
pow.Tensor_Tensor pow.Tensor_Scalar pow.Scalar prelu rad2deg real reciprocal relu relu6 remainder.Tensor remainder.Scalar
remainder.Scalar_Tensor round round.decimals rrelu rsqrt rsub.Tensor rsub.Scalar selu sgn sigmoid sign signbit silu sin sinc
sinh softplus softshrink special_entr special_erf special_erfc special_erfinv special_exp2 special_expit special_expm1
special_gammaln special_i0 special_i0e special_i1 special_i1e special_log1p special_logit special_ndtr special_ndtri
special_round special_sinc special_xlog1py special_xlogy sqrt square sub.Tensor sub.Scalar subtract.Tensor subtract.Scalar tan
tanh threshold true_divide.Tensor true_divide.Scalar trunc where.self where.ScalarOther where.ScalarSelf where.Scalar
xlogy.Tensor xlogy.Scalar_Other xlogy.Scalar_Self
alias zero _to_copy to.device to.dtype to.other to.dtype_layout type_as glu view_as_real view_as_complex
"""

_CREATION = """
arange arange.start arange.start_step bartlett_window blackman_window eye eye.m full full_like
hamming_window hann_window linspace logspace new_full new_ones new_zeros ones ones_like rand rand_like randint
randint.low randint_like randint_like.low_dtype randn randn_like randperm scalar_tensor tril_indices triu_indices zeros
zeros_like
"""

_SHAPES = """
adjoint atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors broadcast_to cartesian_prod cat channel_shuffle chunk
column_stack concat concatenate constant_pad_nd diag diag_embed diagflat diagonal diagonal_scatter dsplit.int dsplit.array
dstack expand expand_as flatten.using_ints flip fliplr flipud hsplit.int hsplit.array hstack mH mT matrix_H meshgrid
meshgrid.indexing moveaxis.int moveaxis.intlist movedim.int movedim.intlist narrow numpy_T pad permute pixel_shuffle
pixel_unshuffle ravel reflection_pad1d reflection_pad2d reflection_pad3d repeat repeat_interleave.self_int replication_pad1d
replication_pad2d replication_pad3d reshape reshape_as roll rot90 select.int select_scatter slice.Tensor slice_scatter
split.Tensor split.sizes split_with_sizes squeeze squeeze.dim squeeze.dims stack swapaxes swapdims t tensor_split.sections
tensor_split.indices tile transpose.int tril triu unbind.int unflatten.int unfold unsafe_chunk unsafe_split.Tensor
unsafe_split_with_sizes unsqueeze view view_as vsplit.int vsplit.array vstack
"""

_INDEXING = """
argwhere bucketize.Tensor bucketize.Scalar embedding embedding_bag embedding_bag.padding_idx gather index.Tensor index_add
index_copy index_fill.int_Scalar index_fill.int_Tensor index_put index_select masked_scatter masked_select nonzero one_hot
put scatter.src scatter.value scatter.reduce scatter.value_reduce scatter_add scatter_reduce.two searchsorted.Tensor
searchsorted.Scalar take take_along_dim
"""

_REDUCTIONS = """
all all.dim all.dims amax amin aminmax any any.dim any.dims argmax argmin argsort argsort.stable count_nonzero
count_nonzero.dim_IntList cummax cummin cumprod cumsum diff kthvalue log_softmax.int _log_softmax logcumsumexp logsumexp max
max.dim mean mean.dim median median.dim min min.dim mode msort nanmean nanmedian nanmedian.dim nanquantile
nanquantile.scalar nansum prod prod.dim_int quantile quantile.scalar softmax.int _softmax sort sort.stable special_log_softmax
special_logsumexp special_softmax std std.correction std.dim std_mean std_mean.correction std_mean.dim sum sum.dim_IntList topk
trace var var.correction var.dim var_mean var_mean.correction var_mean.dim multinomial isin.Tensor_Tensor isin.Tensor_Scalar
"""

_NORMS = """
batch_norm group_norm instance_norm layer_norm native_layer_norm rms_norm _weight_norm norm_except_dim frobenius_norm.dim
norm.Scalar norm.ScalarOpt_dim linalg_norm linalg_norm.ord_str linalg_vector_norm linalg_matrix_norm
linalg_matrix_norm.str_ord cosine_similarity pairwise_distance dist cdist
"""

_PRODUCTS = """
addbmm addmm addmv addr baddbmm bilinear bmm chain_matmul conv1d conv1d.padding conv2d conv2d.padding conv3d conv3d.padding
conv_transpose1d conv_transpose2d.input conv_transpose3d.input convolution cross dot einsum ger inner inverse kron linalg_cholesky
linalg_cross linalg_det linalg_inv linalg_matmul linalg_matrix_exp linalg_matrix_power linalg_multi_dot linalg_solve
linalg_solve_triangular linalg_vecdot linear matmul matrix_exp matrix_power mm mv outer scaled_dot_product_attention tensordot
vdot
"""

_RECURRENT = """
lstm.input gru.input rnn_tanh.input rnn_relu.input lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
"""

_SPATIAL = """
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
affine_grid_generator avg_pool1d avg_pool2d avg_pool3d col2im grid_sampler grid_sampler_2d grid_sampler_3d im2col max_pool1d
max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d max_unpool3d
upsample_bicubic2d upsample_bicubic2d.vec upsample_bilinear2d upsample_bilinear2d.vec upsample_linear1d upsample_linear1d.vec
upsample_nearest1d upsample_nearest1d.vec upsample_nearest2d upsample_nearest2d.vec upsample_nearest3d upsample_nearest3d.vec
upsample_trilinear3d upsample_trilinear3d.vec _upsample_bicubic2d_aa _upsample_bicubic2d_aa.vec _upsample_bilinear2d_aa
_upsample_bilinear2d_aa.vec _upsample_nearest_exact1d _upsample_nearest_exact1d.vec _upsample_nearest_exact2d
_upsample_nearest_exact2d.vec _upsample_nearest_exact3d _upsample_nearest_exact3d.vec
"""

_SPECTRA = """
fft_fft fft_fft2 fft_fftn fft_fftshift fft_hfft fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_irfft fft_irfft2
fft_irfftn fft_rfft fft_rfft2 fft_rfftn fft_fftfreq fft_rfftfreq stft stft.center
"""

_LOSSES = """
binary_cross_entropy binary_cross_entropy_with_logits cross_entropy_loss huber_loss l1_loss mse_loss smooth_l1_loss
"""

_NUMBERS = """
item _local_scalar_dense sym_numel sym_size.int sym_storage_offset sym_stride.int
"""

_QUANTIZED = """
choose_qparams.tensor choose_qparams_per_token dequantize_per_channel dequantize_per_channel_group dequantize_per_tensor
dequantize_per_tensor.tensor dequantize_per_token quantize_per_channel quantize_per_channel_group quantize_per_tensor
quantize_per_tensor.tensor quantize_per_token
"""


def _overloads(namespace: str, names: str) -> dict[str, OpOverload]:
    found = {}
    for name in names.split():
        packet, _, overload = name.partition(".")
        group: Any = getattr(getattr(torch.ops, namespace), packet, None)
        op = getattr(group, overload or "default", None)
        if isinstance(op, OpOverload):  # other versions of PyTorch lack a few
            found[f"{namespace}.{packet}.{overload or 'default'}"] = op
    return found


_ATEN = (
    _ELEMENTWISE,
    _CREATION,
    _SHAPES,
    _INDEXING,
    _REDUCTIONS,
    _NORMS,
    _PRODUCTS,
    _RECURRENT,
    _SPATIAL,
    _SPECTRA,
    _LOSSES,
    _NUMBERS,
)

ADMITTED: dict[str, OpOverload] = {
    name: op for names in _ATEN for name, op in _overloads("aten", names).items()
} | _overloads("quantized_decomposed", _QUANTIZED)
"""The ops by the name under which a file holds them: namespace, op, overload."""

TAKES_NUMBERS = frozenset(_overloads("aten", _ELEMENTWISE).values())
"""Ops that may be given a number where their schema wants a tensor, as `x + 2` is `aten.add.Tensor(x, 2)`."""

REFUSED: dict[str, str] = dict.fromkeys(
    ("aten.empty.memory_format", "aten.empty_like.default", "aten.new_empty.default"),
    "it gives memory as it was found, whatever stood there; a captured graph has zeros instead",
)
"""Ops with a rule, a cost or a straight-through twin that no file may hold, and why."""


def name_of(op: OpOverload) -> str:
    """Returns the name under which a file holds an op."""
    return f"{op.namespace}.{op._schema.name.partition('::')[2]}.{op._overloadname}"
