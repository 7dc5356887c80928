"""What is said of the images that a network is trained and judged on."""

from penjing.data import Split
from penjing.run.samples import told


def test_images_and_classes_are_counted_for_training_and_for_judging():
    assert told(Split(1200, 10, 1, 1)) == "1,200 images of 10 classes to train on, 1 image of 1 class to judge on."
    assert told(Split(0, None, 30, None)) == "No images to train on, 30 images to judge on."


def test_of_images_that_were_held_out_it_is_said_that_the_original_may_know_them():
    said = told(Split(81, 3, 9, 3, held_out=True))
    assert said.startswith(
        "81 images of 3 classes to train on, 9 images of 3 classes to judge on. The latter were held out of"
    )
    assert "trained on all of these knows them" in said and said.endswith("belong in a folder val/.")
