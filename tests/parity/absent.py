"""Functions of PyTorch's that rows of the table use and chainrule does not offer.

A test checks that they are absent: whoever adds one takes its name from here, and its rows count.
"""

ABSENT = frozenset(
    """
    adaptive_avg_pool2d celu conv1d conv_transpose2d cosine_embedding_loss cosine_similarity
    erfinv functional gaussian_nll_loss glu group_norm hardsigmoid hardswish hardtanh
    interpolate kl_div linalg margin_ranking_loss mish multinomial normalize poisson_nll_loss
    prelu relu6 rms_norm scaled_dot_product_attention selu softmin softsign t_ tanhshrink
    threshold unsqueeze_
    """.split()  # noqa: SIM905 - a list to be edited by hand
)
