"""Random pixels in CIFAR-10's binary layout: speed does not depend on what is to be seen."""

import os
import pathlib


def write_random_cifar(folder, train, test=0):
    """data_batch_1.bin with `train` images, test_batch.bin with `test` unless that is 0; labels go round."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "batches.meta.txt").write_text("".join(f"class{i}\n" for i in range(10)))
    for name, count in (("data_batch_1.bin", train), ("test_batch.bin", test)):
        if count:
            with open(folder / name, "wb") as out:
                for i in range(count):
                    out.write(bytes([i % 10]) + os.urandom(3072))
    return folder
