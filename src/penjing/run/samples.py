"""Says which samples a network is trained and judged on."""

from penjing.data import Data, Split


def samples_of(data: Data) -> str:
    """Returns the word for the samples of the data."""
    return "samples" if data.split is None else "images"


def told(split: Split) -> str:
    """Says how many images there are for training and for judging, and whether the original may know the latter."""
    for_training = _counted(split.training, split.training_classes)
    sentence = f"{for_training} to train on, {_counted(split.judging, split.judging_classes)} to judge on."
    if not split.held_out:
        return sentence
    return (
        f"{sentence} The latter were held out of the training images: an original that was trained on all of these knows them, "
        "and its metric is then no measure for new images. Images that it doesn't know belong in a folder val/."
    )


def _counted(images: int, classes: int | None) -> str:
    if not images:
        return "No images"
    shown = "" if classes is None else f" of {classes:,} class{'' if classes == 1 else 'es'}"
    return f"{images:,} image{'' if images == 1 else 's'}{shown}"
