"""What KRT does in a session, beyond its numbers."""

import torch
from phase_calls import before_training

from mlcil.methods import KRT
from mlcil.methods.base import SessionContext
from mlcil.models.network import IncrementalNetwork


def method_after(sessions, **options):
    torch.manual_seed(0)
    head = {"type": "ica", "embed_dim": 16, "num_heads": 2}
    network = IncrementalNetwork({"name": "tresnet", "layers": [1, 1, 1, 1], "width": 0.25, "abn": "torch"}, head, 64)
    method = KRT(network, **options)
    for index in range(sessions):
        method.begin_session(context(index))
    return method


def context(index, cardinality=2.0):
    return SessionContext(index, 2 * index, 2 * index + 2, 2, 10, cardinality, 0.5 + index, batch_size=64)


def test_the_teacher_is_frozen_and_no_part_of_the_method():
    method = method_after(2)
    assert method.teacher is not None
    assert not any(p.requires_grad for p in method.teacher.parameters())
    own = {id(p) for p in method.parameters()}
    assert not any(id(p) in own for p in method.teacher.parameters())
    assert len(method.state_dict()) == len(method.network.state_dict())
    method.train()
    images = torch.rand(2, 3, 64, 64)
    before = {k: v.clone() for k, v in method.teacher.state_dict().items()}
    method(images, torch.zeros(2, 4), mode="loss")["loss_cls"].backward()
    after = method.teacher.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_pseudo_labels_enter_the_loss_only_where_the_teacher_fires():
    method = method_after(2, token_weight=0.0)
    method.eval()
    images, targets = torch.rand(4, 3, 64, 64), torch.zeros(4, 4)
    scores = torch.sigmoid(method.teacher_output(images).logits_BC)
    method.threshold = 0.999
    none = method(images, targets, mode="loss")["loss_cls"]
    method.threshold = float(scores.min()) - 1e-3
    all_old = method(images, targets, mode="loss")["loss_cls"]
    given = torch.zeros(4, 4)
    given[:, :2] = 1
    method.pseudo_labels = False
    torch.testing.assert_close(all_old, method(images, given, mode="loss")["loss_cls"])
    torch.testing.assert_close(none, method(images, targets, mode="loss")["loss_cls"])
    assert not torch.equal(none, all_old)


def test_old_tokens_and_classifiers_do_not_train():
    method = method_after(3)
    frozen = {n for n, p in method.network.named_parameters() if not p.requires_grad}
    assert {n.split(".")[1] + n.split(".")[2] for n in frozen} == {
        "kr_tokens0",
        "kr_tokens1",
        "classifiers0",
        "classifiers1",
    }


def test_the_threshold_is_carried_from_session_to_session():
    method = method_after(2)
    method.threshold = 0.61
    state = method.method_state()
    other = method_after(1)
    other.load_method_state(state)
    assert other.threshold == 0.61
    other.begin_session(context(1))
    assert other.threshold == 0.61


def test_the_target_without_a_stated_cardinality_comes_from_earlier_sessions():
    method = method_after(0)
    for index in range(3):
        method.begin_session(context(index, cardinality=None))
    assert method.target_count == 0.5 + 1.5
    method.begin_session(context(3))
    assert method.target_count == 2.0 * 6 / 10


def test_the_search_looks_at_every_image_of_the_loader(monkeypatch):
    method = method_after(2)
    batches = [{"inputs": torch.rand(3, 3, 64, 64), "targets": torch.zeros(3, 4)} for _ in range(2)]
    seen = []
    original = method.teacher_output
    monkeypatch.setattr(method, "teacher_output", lambda x: seen.append(len(x)) or original(x))
    before_training(method, batches)
    assert sum(seen) == 6
    assert method.session_report()["dpl"]["target"] == 2.0 * 2 / 10


def test_the_teacher_scores_in_float32_beside_a_student_in_bf16():
    method = method_after(2)
    images, seen = torch.rand(2, 3, 64, 64), []
    method.teacher.register_forward_hook(lambda module, inputs, output: seen.append(output.logits_BC))
    with torch.autocast("cpu", torch.bfloat16):
        method(images, torch.zeros(2, 4), mode="loss")
    assert seen[0].dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(seen[0], method.teacher(images).logits_BC)
