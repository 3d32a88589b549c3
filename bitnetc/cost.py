"""The numbers plan() compares, each with its formula. Unit: cycles of one core per token.

All cores of a machine work on a step together, so a core has its share of the memory's rate and no
more: where four cores share a narrow bus, fewer bytes are worth more arithmetic.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bitnetc.kernels import Kernel, Skips
from bitnetc.target import Cost

PROMPT = 0.25  # tokens of a prompt for each token of the answer


@dataclass(frozen=True)
class MatrixCost:
    compute: float  # blocks * cycles per block
    memory: float  # packed bytes / bytes per cycle
    tables: float  # this matrix's part of building look-up tables, 0 for int8 activations
    prompt: float = 0.0  # arithmetic for one token of many; 0 where the target has no figures

    @property
    def cycles(self) -> float:
        """Arithmetic and the stream of weights overlap; building tables comes before both."""
        return max(self.compute, self.memory) + self.tables

    @property
    def choice(self) -> float:
        """What candidates are compared by: a token of an answer and its part of the prompt. Many
        tokens share one stream of weights, so that of the prompt only arithmetic counts."""
        return self.cycles + (PROMPT * (self.prompt + self.tables) if self.prompt else 0.0)


def matrix_cost(
    kernel: Kernel,
    rows: int,
    cols: int,
    sharers: int,
    cost: Cost,
    density: Mapping[Skips, float] | None = None,
) -> MatrixCost:
    """Cost of one decode step through a padded matrix; `sharers` matrices read one input.

    density: the share of the rows or columns that matter, as far as is known
    """
    share = (density or {}).get(kernel.skips, 1.0)
    layout = kernel.layout
    blocks = (rows // layout.rows) * (cols // layout.cols)
    one = cost.cycles_per_block[kernel.name]
    # Tokens of a prompt go one after the other where their zeros make that less.
    many = min(cost.cycles_many.get(kernel.name, 0.0), share * one)
    tables = cols // 2 * cost.cycles_per_lut16 / sharers if kernel.activation == "lut16" else 0.0
    return MatrixCost(
        compute=share * blocks * one,
        memory=share * layout.packed_bytes(rows, cols) / cost.bytes_per_cycle,
        tables=tables,
        prompt=blocks * many,
    )
