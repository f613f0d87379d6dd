"""Our event files through TensorBoard's own loader: every record's CRC, tag, step and value as metrics.csv has them.

The files are written by the unit test MetricSinks.ParityFolder (rows, a truncation for resume, new columns).
Exit codes: 0 equal, 77 tensorboard is missing, 1 not equal.
"""
import csv
import math
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    from tensorboard.backend.event_processing import event_file_loader
    from tensorboard.util import tensor_util
except ImportError as error:
    print(f"skipped: the Python package tensorboard is missing ({error})")
    sys.exit(77)


def as_float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def main():
    test = Path(os.environ["ESPALIER_BUILD"]) / "modules/run/espalier_run_test"
    if not test.exists():
        print(f"skipped: {test} is not built")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ, ESPALIER_PARITY_OUT=folder)
        subprocess.run([test, "--gtest_filter=MetricSinks.ParityFolder"], check=True, env=environment,
                       stdout=subprocess.DEVNULL)
        (events,) = Path(folder).glob("events.out.tfevents.*")
        found = {}
        versions = []
        for event in event_file_loader.EventFileLoader(str(events)).Load():
            if event.HasField("file_version"):
                versions.append(event.file_version)
            for value in event.summary.value:
                number = float(tensor_util.make_ndarray(value.tensor))
                key = (event.step, value.tag)
                assert key not in found, f"{key} twice"
                found[key] = number
        with open(Path(folder) / "metrics.csv", newline="", encoding="utf-8") as file:
            expected = {
                (int(row["step"]), name): as_float32(float(text))
                for row in csv.DictReader(file) for name, text in row.items() if name != "step" and text != ""
            }
    assert versions == ["brain.Event:2"], versions
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    wrong = [key for key, value in expected.items() if not math.isclose(found[key], value, rel_tol=0, abs_tol=0)]
    assert not wrong, wrong[:5]
    print(f"{len(found)} scalars equal in tensorboard's loader and metrics.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
