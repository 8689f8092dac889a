"""What the TPU compiler says of the published recipe's training step on slices that are not here: one table.

Each row is `groupvit compile`, minutes of one core and up to 7 GB of memory; --keep=DIR keeps the reports, and takes
those that lie there as they are. Nothing runs on a TPU: see the caveats that the command prints.

    python tests/benchmarks/pod_cost.py [--keep=DIR] [--rows="v5e:8x8;padded"]
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
PADDED, BATCH = ("--config.data.packing=False",), 4096
ROWS = {  # name -> slice, overrides
    **{name: (name, ()) for name in ("v5e:8x8", "v5e:16x16", "v4:2x2x4", "v5p:2x2x4", "v6e:4x8")},
    "padded": ("v5e:8x8", PADDED),
    "padded, scan": ("v5e:8x8", (*PADDED, "--config.train.scan=True")),
    "scan": ("v5e:8x8", ("--config.train.scan=True",)),
    "remat=dots": ("v5e:8x8", ("--config.train.remat=dots",)),
    "remat=full": ("v5e:8x8", ("--config.train.remat=full",)),
    "microbatches=1": ("v5e:2x4", ()),
    "microbatches=8": ("v5e:2x4", ("--config.train.microbatches=8",)),
}
PARAMETERS, EMBEDDINGS = 55_726_610, BATCH * (1 + 4) * 256  # of an image and its four texts
LEAST = 2 * (PARAMETERS + EMBEDDINGS)  # bytes that each chip must get: gradients and embeddings in bfloat16


def compiled(name: str, keep: pathlib.Path) -> dict:
    """The report of a row."""
    topology, overrides = ROWS[name]
    output = keep / f"{name.replace(':', '_').replace(', ', '_')}.json"
    if not output.exists():
        print(f"compiling {name}", file=sys.stderr, flush=True)
        program = "from groupvit_jax.cli.main import main; main()"
        subprocess.run([sys.executable, "-c", program, "compile", "--config=configs/base.py", f"--topology={topology}",
                        f"--output={output}", *overrides], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return json.loads(output.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=pathlib.Path, default=None)
    parser.add_argument("--rows", default=";".join(ROWS), help="divided by semicolons")
    given = parser.parse_args()
    keep = given.keep or pathlib.Path(tempfile.mkdtemp())
    print("| recipe | slice | peak GiB a chip | estimated cycles | without cycles: fusions, custom calls | "
          "collectives MB, of the least | float32 products | model TFLOP a chip |\n" + "|---" * 8 + "|")
    for name in given.rows.split(";"):
        report = compiled(name, keep.absolute())
        start = f"| {'published' if name == ROWS[name][0] else name} | {report['topology']}"
        if report["fits"]:
            moved = sum(report["collective_bytes"].values())
            print(f"{start} | {report['peak_bytes'] / 2**30:.2f} of {report['hbm_bytes'] / 2**30:.0f} | "
                  f"{report['estimated_cycles']:.3g} | {report['uncosted_fusions']}, {len(report['custom_calls'])} | "
                  f"{moved / 1e6:.0f} ({moved / LEAST:.2f}x) | {report['f32_matmuls']} | "
                  f"{report['model_flops_per_chip'] / 1e12:.2f} |", flush=True)
        else:
            asked, room = (report[key] / 2**30 for key in ("peak_bytes", "hbm_bytes"))
            print(f"{start} | does not fit: {asked:.1f} of {room:.1f} | | | | | |")


if __name__ == "__main__":
    main()
