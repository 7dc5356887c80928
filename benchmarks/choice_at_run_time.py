"""Networks that choose their own cost while they run: nested widths and early exits, on CIFAR-10.

python benchmarks/choice_at_run_time.py RESNET20.safetensors CIFAR10.zip widths   # three widths, together and each alone
python benchmarks/choice_at_run_time.py RESNET56.safetensors CIFAR10.zip exits    # in float and in int8

The widths of ResNet-20 are trained together by the sandwich rule, and each of them alone for as many epochs, from the same
weights. The exits of ResNet-56 get heads, trained on a quarter of the training images, while its own weights stay; each sample is
timed alone, with exits and without in turns. The threshold is chosen on one half of the test images, and what it does is measured
on samples of the other half. A run that was killed goes on with the next row when it is started again.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import penjing as pj
from _pruning import judge, network, some
from _rows import Rows
from _tables import publish

WIDTHS = (0.25, 0.5, 1.0)
DROP = 0.005  # half a point
WIDTHS_EPOCHS = 20  # of each training of widths, together and alone
HEADS_EPOCHS = 2  # of the heads of exits, which are linear and learn in few steps
QUARTER = 12_500  # training images for the heads of exits


def main() -> None:
    """Runs what is missing of one table, and publishes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("what", choices=("widths", "exits"))
    defaults = f"{WIDTHS_EPOCHS} for widths, {HEADS_EPOCHS} for the heads of exits"
    parser.add_argument("--epochs", type=int, help=f"of each training: {defaults}")
    parser.add_argument(
        "--network-epochs", type=int, default=0, help="of the network along with its exits, before their heads"
    )
    parser.add_argument("--samples", type=int, default=1000, help="that are timed, spread over the test images")
    parser.add_argument("--numbers", nargs="+", choices=("float32", "int8"), default=["float32", "int8"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "widths":
        _widths(options)
    else:
        _exits(options)


def _widths(options: argparse.Namespace) -> None:
    rows, data = Rows("choice_widths"), pj.data.cifar10(options.data)
    epochs = WIDTHS_EPOCHS if options.epochs is None else options.epochs
    trained = network("resnet20", options.weights)
    training = {"weight_decay": 5e-4, "precision": "float32", "channels_last": True}

    def together() -> dict[str, Any]:
        slim = pj.slimmable(
            trained, WIDTHS, data=data, epochs=epochs, lr=0.1, progress=False, log=print, training=training
        )
        return {str(width): judge(slim.graph(place), data)["accuracy"] for place, width in enumerate(slim.widths)}

    def alone(width: float) -> dict[str, Any]:
        graph = trained if width == 1 else pj.prune(trained, 1 - width, data=data)
        pj.recover(graph, data, teacher=trained, epochs=epochs, lr=0.1, progress=False, **training)
        return judge(graph, data)

    shared = rows.once(["together", epochs], together)
    table = []
    for width in WIDTHS:
        own = rows.once(["alone", width, epochs], lambda width=width: alone(width))["accuracy"]
        table.append(
            [f"{width:g}", f"{own:.2%}", f"{shared[str(width)]:.2%}", f"{100 * (shared[str(width)] - own):+.2f}"]
        )
    publish("choice_widths", ["width", "trained alone", "in one set of weights", "points"], table)


def _exits(options: argparse.Namespace) -> None:
    rows, data = Rows("choice_exits"), pj.data.cifar10(options.data)
    epochs = HEADS_EPOCHS if options.epochs is None else options.epochs
    batches = list(data.validation)
    chosen, judged = replace(data, validation=batches[::2]), replace(data, validation=batches[1::2])
    original, table, along = network("resnet56", options.weights), [], options.network_epochs
    networks: list[pj.Graph] = []  # trained once, where a row asks for it

    def trained() -> pj.Graph:
        if not networks and along:
            whole = pj.early_exit(
                original, data=chosen, drop=DROP, epochs=along, train_network=True, lr=0.05, progress=False, log=print
            ).whole()  # fmt: skip
            networks.append(whole)
        return networks[0] if networks else original

    before = rows.once(["original"], lambda: judge(original, judged))["accuracy"]
    for numbers in options.numbers:

        def run(numbers: str = numbers) -> dict[str, Any]:
            graph = trained() if numbers == "float32" else pj.quantize(trained(), data)
            exits = pj.early_exit(
                graph, data=some(chosen, QUARTER), drop=DROP, epochs=epochs, progress=False, log=print
            )
            found = exits.measure(judged, samples=options.samples)
            print(exits, found, sep="\n", flush=True)
            return {**vars(found), "speedup": found.speedup, "threshold": exits.threshold}

        row = rows.once([numbers, epochs, along], run)
        table.append([
            numbers, along or "", f"{row['whole_mean_ms']:.2f}", f"{row['mean_ms']:.2f}", f"{row['speedup']:.2f}×",
            f"{row['whole_p90_ms']:.2f}", f"{row['p90_ms']:.2f}", f"{before:.2%}", f"{row['whole_metric']:.2%}",
            f"{row['metric']:.2%}", f"{100 * (row['metric'] - before):+.2f}",
            " / ".join(f"{share:.0%}" for share in row["shares"]),
        ])  # fmt: skip
    columns = [
        "numbers", "epochs of the network", "mean, ms", "with exits", "gain", "p90, ms", "with exits", "accuracy before",
        "of the whole", "with exits", "points", "left at",
    ]  # fmt: skip
    publish("choice_exits", columns, table)


if __name__ == "__main__":
    main()
