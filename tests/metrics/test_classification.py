import numpy as np
import pytest

from spatial_functa_pipeline.metrics.classification import class_accuracies, confusion_matrix, confusion_table

LABELS = np.array([0, 0, 0, 0, 1, 1, 3])
PREDICTED = np.array([0, 0, 1, 3, 1, 1, 1])
CLASSES = ("shirt", "coat", "bag", "boot")
CONFUSION = [[2, 1, 0, 1], [0, 2, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]


def test_confusion_counts_true_classes_in_rows_and_predicted_ones_in_columns():
    np.testing.assert_array_equal(confusion_matrix(LABELS, PREDICTED, 4), CONFUSION)


def test_the_table_has_the_names_of_the_classes():
    table = confusion_table(np.array(CONFUSION), CLASSES)
    assert table.loc["shirt", "coat"] == 1
    assert table.loc["coat", "shirt"] == 0
    assert table.index.name == "true_class"


def test_accuracy_of_each_class():
    table = class_accuracies(np.array(CONFUSION), CLASSES).set_index("class")
    assert table["images"].tolist() == [4, 2, 0, 1]
    np.testing.assert_allclose(table["accuracy"], [0.5, 1, np.nan, 0])
    np.testing.assert_allclose(table["precision"], [1, 0.5, np.nan, 0])
    assert table["most_often_taken_for"].tolist() == ["coat", "", "", "coat"]
    assert table["times"].tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(("labels", "predicted"), [([0, 1], [0]), ([0, 4], [0, 0]), ([0, 1], [0, -1])])
def test_labels_and_predictions_must_fit(labels, predicted):
    with pytest.raises(ValueError, match=r"expected one prediction per label|there are classes 0 to 3"):
        confusion_matrix(np.array(labels), np.array(predicted), 4)
