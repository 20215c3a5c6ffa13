"""Operations of the decoder graph that stand on MAX's own kernels: what GPUs compute with."""

from .attention_gpu import FlashAlibiAttention
from .linear_gpu import LinearFloat32
