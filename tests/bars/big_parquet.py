"""Writes a Parquet file of 4 GiB that no program should have to hold at once.

    big_parquet.py FILE

49 columns of doubles, the inputs of `adult-mlp.onnx`, and the column `label`: seeded noise, which does not
compress. The label is a sign of one column, so that the classes are not all alike.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

BYTES = 4 << 30
ROWS_PER_GROUP = 65_536
FEATURES = 49


def group(generator: np.random.Generator) -> pyarrow.Table:
    features = generator.random((FEATURES, ROWS_PER_GROUP))
    columns = {f"x{i:02}": column for i, column in enumerate(features)}
    columns["label"] = (features[0] > 0.75).astype(np.int64)
    return pyarrow.table(columns)


def main() -> None:
    path = Path(sys.argv[1])
    partial = path.with_suffix(".partial")
    generator = np.random.default_rng(0)
    table = group(generator)
    with pyarrow.parquet.ParquetWriter(partial, table.schema, compression="none", use_dictionary=False) as writer:
        while not partial.exists() or os.path.getsize(partial) < BYTES:
            writer.write_table(table)
            table = group(generator)
    partial.rename(path)


main()
