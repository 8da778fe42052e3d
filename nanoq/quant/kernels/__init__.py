"""Products with packed weights on the CPU, without making the float weight first.

At one token a linear layer does nothing but read its weight, so that fewer bytes are less time. Two kinds of kernel:

* Weight-only ("int8", "int4"): codes become small integers (code - zero point) in registers and are multiplied by
  float32 activations. The result is the dequantised product within float32 rounding: only the order of the sum and the
  place of the scale differ, y_r = sum over groups g of scale_rg * sum over k in g of (code_rk - zero_rg) x_k. For
  several tokens a row is decoded once, into the cache.
* W8A8 ("w8a8"): activations are rounded too, each token on its own symmetric scale, and both sides are multiplied as
  integers (ZeroQuant, Yao et al. 2022, arXiv 2206.01861). The int32 sums are exact; the rounding of
  the activations changes the result, so it is never chosen unless asked for.

`choose_backend` measures which is fastest here. The first call of a kernel compiles it, which takes some seconds;
`nanoq.compiled` says where the machine code is kept for the next process.
"""

from nanoq.quant.kernels.backends import (
    BACKENDS,
    MOST_TOKENS,
    WEIGHT_ONLY,
    BackendReport,
    Kernel,
    candidates,
    choose_backend,
    integer_product,
    is_exact,
    numba_product,
    quantize_per_token,
    torch_product,
    use_backend,
    why_not,
)

__all__ = [
    "BACKENDS", "MOST_TOKENS", "WEIGHT_ONLY", "BackendReport", "Kernel", "candidates", "choose_backend",
    "integer_product", "is_exact", "numba_product", "quantize_per_token", "torch_product", "use_backend", "why_not",
]
