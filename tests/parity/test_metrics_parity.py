"""Case d: average precision, precision, recall and F1."""

import numpy as np
import parity_fixtures
import pytest

from mlcil.evaluation.multilabel import average_precision, mean_average_precision, precision_recall_f1

Z = parity_fixtures.load()
RTOL = 1e-9
SIX = "P_C_R_C_F1_C_P_O_R_O_F1_O"
TARGETS = Z["d/notie/targets"]


def test_average_precision_without_ties():
    scores = Z["d/notie/scores"]
    ap = average_precision(scores, TARGETS)
    empty = TARGETS.sum(0) == 0
    np.testing.assert_array_equal(np.isnan(ap), empty)
    np.testing.assert_allclose(np.nan_to_num(ap), Z["d/notie/ap"], rtol=RTOL)
    np.testing.assert_allclose(mean_average_precision(scores, TARGETS), Z["d/notie/mAP"], rtol=RTOL)
    np.testing.assert_allclose(ap, Z["d/notie/sklearn_ap"], rtol=1e-7)  # the official 1e-8 in the divisor


def test_ties_keep_the_order_of_the_images():
    ap = average_precision(Z["d/tie/scores"], TARGETS)
    np.testing.assert_allclose(np.nan_to_num(ap), Z["d/tie/ap_stable_descending"], rtol=RTOL)


@pytest.mark.parametrize("key", sorted(k for k in Z.files if k.startswith("d/") and f"/{SIX}_thr" in k))
def test_precision_recall_f1(key):
    case, threshold = key.split("/")[1], float(key.rsplit("thr", 1)[1])
    found = precision_recall_f1(Z[f"d/{case}/scores"], TARGETS, threshold)
    six = [found[name] for name in ("CP", "CR", "CF1_mean", "OP", "OR", "OF1")]
    np.testing.assert_allclose(six, Z[key], rtol=RTOL)


def test_nothing_predicted():
    found = precision_recall_f1(np.zeros_like(TARGETS), TARGETS, 0.8)
    six = [found[name] for name in ("CP", "CR", "CF1_mean", "OP", "OR", "OF1")]
    np.testing.assert_allclose(six, Z[f"d/none_predicted/{SIX}"], rtol=RTOL)
