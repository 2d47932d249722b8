"""Case d: average precision, precision, recall and F1."""

import numpy as np
from krt_fixtures import each

from mlcil.evaluation.multilabel import average_precision, mean_average_precision, precision_recall_f1

RTOL = 1e-9
SIX = "P_C_R_C_F1_C_P_O_R_O_F1_O"
TARGETS = "d/notie/targets"  # of both cases


@each()
def test_average_precision_without_ties(Z):
    scores = Z["d/notie/scores"]
    ap = average_precision(scores, Z[TARGETS])
    empty = Z[TARGETS].sum(0) == 0
    np.testing.assert_array_equal(np.isnan(ap), empty)
    np.testing.assert_allclose(np.nan_to_num(ap), Z["d/notie/ap"], rtol=RTOL)
    np.testing.assert_allclose(mean_average_precision(scores, Z[TARGETS]), Z["d/notie/mAP"], rtol=RTOL)
    np.testing.assert_allclose(ap, Z["d/notie/sklearn_ap"], rtol=1e-7)  # the official 1e-8 in the divisor


@each()
def test_ties_keep_the_order_of_the_images(Z):
    ap = average_precision(Z["d/tie/scores"], Z[TARGETS])
    np.testing.assert_allclose(np.nan_to_num(ap), Z["d/tie/ap_stable_descending"], rtol=RTOL)


@each("key", lambda Z: [key for key in Z.keys("d/") if f"/{SIX}_thr" in key])
def test_precision_recall_f1(Z, key):
    case, threshold = key.split("/")[1], float(key.rsplit("thr", 1)[1])
    found = precision_recall_f1(Z[f"d/{case}/scores"], Z[TARGETS], threshold)
    six = [found[name] for name in ("CP", "CR", "CF1_mean", "OP", "OR", "OF1")]
    np.testing.assert_allclose(six, Z[key], rtol=RTOL)


@each()
def test_nothing_predicted(Z):
    found = precision_recall_f1(np.zeros_like(Z[TARGETS]), Z[TARGETS], 0.8)
    six = [found[name] for name in ("CP", "CR", "CF1_mean", "OP", "OR", "OF1")]
    np.testing.assert_allclose(six, Z[f"d/none_predicted/{SIX}"], rtol=RTOL)
