"""Products with packed weights on the CPU, without making the float weight first.

At one token a linear layer does nothing but read its weight, so that fewer bytes are less time. Two kinds of kernel:

* Weight-only ("int8", "int4", "int3", "int2"): codes become small floats in registers and are multiplied by float32
  activations. The result is the dequantised product within float32 rounding: only the order of the sum and the places
  of the scale and the zero differ, y_r = sum over groups g of scale_rg * (sum of code_rk x_k - zero_rg * sum of x_k),
  the sums over k in g. For many tokens the weight is decoded, a few columns at a time, and multiplied as a float
  matrix. "int8" keeps each code in a byte, whatever its width, and takes the codes of an entropy-coded layer, decoded
  once.
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
    IntegerKernel,
    Kernel,
    candidates,
    choose_backend,
    integer_product,
    is_exact,
    numba_product,
    quantize_per_token,
    torch_product,
    use_backend,
    weight_only,
    why_not,
)

__all__ = [
    "BACKENDS", "MOST_TOKENS", "WEIGHT_ONLY", "BackendReport", "IntegerKernel", "Kernel", "candidates",
    "choose_backend", "integer_product", "is_exact", "numba_product", "quantize_per_token", "torch_product",
    "use_backend", "weight_only", "why_not",
]
