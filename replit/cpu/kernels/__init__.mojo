"""Custom operations of the decoder graph, one module for each group of operations."""

from .attention import PagedAlibiAttention
from .bandwidth import ReadBytes
from .embedding import Embedding
from .layout import LayOut
from .linear import Linear, LinearAdd, LinearGelu, NormLinear, NormLinearGelu
