"""Functions of PyTorch's that rows of the table use and chainrule does not offer.

A test checks that they are absent: whoever adds one takes its name from here, and its rows count.
"""

ABSENT = frozenset(
    """
    adaptive_avg_pool2d addcdiv addcdiv_ addcmul addcmul_ addmv allclose argwhere asarray
    atleast_1d baddbmm bincount celu clamp_max clamp_max_ clamp_min clamp_min_ conv1d
    conv_transpose2d cosine_embedding_loss cosine_similarity cummax cummin deg2rad diag_embed
    diff equal erfinv finfo fliplr float_power frac functional gaussian_nll_loss glu group_norm
    hardsigmoid hardswish hardtanh hypot index_copy index_copy_ index_fill index_fill_ index_put
    index_put_ inner interpolate isclose kl_div kron kthvalue lerp lerp_ linalg logaddexp
    logcumsumexp logit margin_ranking_loss masked_scatter median mish multinomial nan_to_num
    nanmean nansum nbytes new_ones new_zeros normalize poisson_nll_loss positive prelu
    promote_types rad2deg relu6 result_type rms_norm rot90 rsub scaled_dot_product_attention
    searchsorted selu signbit sinc softmin softsign std_mean t_ take tanhshrink tensor_split
    tensordot threshold tril_indices type_as unfold unique unsqueeze_
    """.split()  # noqa: SIM905 - a list to be edited by hand
)
