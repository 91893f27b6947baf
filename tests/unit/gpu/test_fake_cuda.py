"""What is counted of a run on fake CUDA tensors is what the device would be asked."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError
from transformers import LlamaConfig

from tests.support.fake_cuda import CUDA, Counts, UploadKind, fake_cuda, random_model

BF16 = torch.bfloat16


def matrix(size: int = 8, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(size, size, device=CUDA, dtype=dtype)


def counted(work: Callable[[torch.Tensor], object]) -> Counts:
    """Counts of some work on an (8, 8) tensor."""
    with fake_cuda() as counts:
        x = matrix()
        counts.clear()
        work(x)
    return counts


def test_nothing_is_computed_and_devices_are_told() -> None:
    with fake_cuda():
        product = matrix(1 << 17) @ matrix(1 << 17)  # 64 GiB each
        assert (product.device, product.is_cuda, tuple(product.shape)) == (CUDA, True, (1 << 17, 1 << 17))
        assert torch.ones(2).sum().item() == 2


@pytest.mark.parametrize(
    ("work", "launches"),
    [
        (lambda x: x @ x, {"aten.mm": 1}),
        (lambda x: x[2:].t().unsqueeze(0), {}),
        (lambda x: torch.empty_like(x).fill_(1), {"aten.fill_": 1}),
        (lambda x: x.logsumexp(-1), {"aten.logsumexp": 9}),
        (lambda x: x.softmax(-1), {"aten._softmax": 1}),
        (lambda x: x.to(BF16).to("cuda"), {"aten._to_copy": 1}),
        (lambda x: x.to("cuda").contiguous(), {}),
        (lambda x: x.index_select(0, torch.empty(2, device="cuda", dtype=torch.long)), {"aten.index_select": 1}),
        (lambda x: x.uniform_(), {"aten.uniform_": 1}),
        (lambda x: x.cpu(), {}),
        (lambda x: torch._foreach_add_([torch.empty_like(x) for _ in range(111)], 1.0), {"aten._foreach_add_": 2}),
    ],
)
def test_launches(work: Callable[[torch.Tensor], object], launches: dict[str, int]) -> None:
    assert dict(counted(work).launches) == launches


def test_views_are_counted_apart() -> None:
    counts = counted(lambda x: x.view(4, 16)[1:].t())
    assert (counts.views, counts.num_launches) == (3, 0)


@pytest.mark.parametrize(
    ("work", "syncs"),
    [
        (lambda x: x.sum().item(), {"item": 1}),
        (lambda x: float(x.sum()), {"item": 1}),
        (lambda x: bool(x.any()), {"item": 1}),
        (lambda x: x.tolist(), {"tolist": 1}),
        (lambda x: x.cpu().numpy(), {"copy": 1}),
        (lambda x: torch.empty(8, 8).copy_(x), {"copy": 1}),
        (lambda x: x.to("cpu", non_blocking=True), {}),
        (lambda x: x.nonzero(), {"nonzero": 1}),
        (lambda x: x[x > 0], {"nonzero": 1}),
        (lambda x: x.masked_fill(x > 0, 1.0), {}),
        (lambda x: x.__setitem__(x > 0, 1.0), {}),
        (lambda x: torch.equal(x, x), {"equal": 1}),
        (lambda x: torch.cuda.synchronize(), {"device": 1}),
        (lambda x: torch.cuda.current_stream().synchronize(), {"stream": 1}),
        (lambda x: x @ x, {}),
    ],
)
def test_syncs(work: Callable[[torch.Tensor], object], syncs: dict[str, int]) -> None:
    assert dict(counted(work).syncs) == syncs


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        (lambda x: torch.ones(3).to("cuda"), "blocking"),
        (lambda x: torch.tensor([1, 2, 3], device="cuda"), "blocking"),
        (lambda x: torch.from_numpy(torch.ones(3).numpy()).cuda(), "blocking"),
        (lambda x: x.copy_(torch.ones(8, 8)), "blocking"),
        (lambda x: x[[0, 1]], "blocking"),
        (lambda x: torch.ones(3).to("cuda", non_blocking=True), "pageable"),
        (lambda x: torch.ones(3).pin_memory().to("cuda"), "blocking"),
        (lambda x: torch.ones(3).pin_memory().to("cuda", non_blocking=True), "pinned"),
        (lambda x: torch.ones(3, pin_memory=True).to("cuda", non_blocking=True), "pinned"),
        (lambda x: torch.ones(9).pin_memory()[3:6].to("cuda", non_blocking=True), "pinned"),
        (lambda x: x.copy_(torch.ones(8, 8).pin_memory(), non_blocking=True), "pinned"),
    ],
)
def test_uploads(work: Callable[[torch.Tensor], object], kind: UploadKind) -> None:
    counts = counted(work)
    assert (dict(counts.uploads), counts.num_syncs) == ({kind: 1}, 0)
    assert counts.num_waits == (kind == "blocking")
    assert counts.upload_bytes > 0


@torch.inference_mode()
def test_copies_are_the_same_in_inference_mode() -> None:
    counts = counted(lambda x: (x @ x, torch.ones(3).pin_memory().to("cuda", non_blocking=True), x.cpu()))
    assert (dict(counts.uploads), dict(counts.syncs), dict(counts.launches)) == (
        {"pinned": 1},
        {"copy": 1},
        {"aten.mm": 1},
    )


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x @ torch.ones(8, 8),
        lambda x: x + torch.ones(8),
        lambda x: torch.cat([x, torch.ones(8, 8)]),
        lambda x: F.linear(x, torch.ones(8, 8)),
        lambda x: torch.ones(8, 8).add_(x),
    ],
)
def test_mixed_devices_fail(work: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises(FakeTensorDeviceMismatchError):
        counted(work)


def test_a_scalar_on_the_host_meets_any_device() -> None:
    assert counted(lambda x: x * torch.tensor(2.0)).launches == {"aten.mul": 1}


def test_values_that_are_read_can_be_chosen() -> None:
    with fake_cuda(number=3, boolean=True) as counts:
        x = matrix(2)
        assert x.tolist() == [[3.0, 3.0], [3.0, 3.0]]
        assert bool(x.isnan().any())
        assert x.long().cpu().numpy().sum() == 12
    assert counts.num_syncs == 3
    assert counts.download_bytes == 16 + 1 + 32


def test_gradients_pass_through_and_are_counted() -> None:
    with fake_cuda() as counts:
        x, weight = matrix(), matrix().requires_grad_()
        counts.clear()
        torch.autograd.backward((x @ weight).sum())
        assert weight.grad is not None
        assert weight.grad.device == CUDA
    assert counts.launches == {"aten.mm": 2, "aten.sum": 1, "aten.ones_like": 1}


@pytest.mark.parametrize(
    ("dtype", "is_masked", "kernel"),
    [(BF16, False, "flash"), (BF16, True, "efficient"), (torch.float32, False, "efficient")],
)
def test_attention_takes_a_devices_kernels(dtype: torch.dtype, is_masked: bool, kernel: str) -> None:
    with fake_cuda() as counts:
        query = torch.empty(1, 4, 8, 64, device=CUDA, dtype=dtype, requires_grad=True)
        key = torch.empty(1, 2, 8, 64, device=CUDA, dtype=dtype, requires_grad=True)
        mask = torch.empty(8, 8, device=CUDA, dtype=torch.bool) if is_masked else None
        out = F.scaled_dot_product_attention(query, key, key, attn_mask=mask, is_causal=not is_masked, enable_gqa=True)
        torch.autograd.backward(out.sum())
        assert query.grad is not None
        assert key.grad is not None
        assert (out.shape, query.grad.shape, key.grad.shape) == (query.shape, query.shape, key.shape)
    name = f"aten._scaled_dot_product_{kernel}_attention"
    assert (counts.launches[name], counts.launches[f"{name}_backward"]) == (1, 3)


def test_threads_that_are_started_meanwhile_know_the_device() -> None:
    made: list[torch.Tensor] = []
    with fake_cuda() as counts:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: made.append(torch.ones(3, pin_memory=True).to("cuda", non_blocking=True))).result()
        assert (made[0] * 2).device == CUDA
    assert (dict(counts.uploads), dict(counts.launches)) == ({"pinned": 1}, {"aten.mul": 1})


@pytest.mark.parametrize("device", ["cuda", CUDA])
def test_modules_move_with_what_they_share(device: str | torch.device) -> None:
    with fake_cuda() as counts:
        modules = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)])
        modules[1].weight = modules[0].weight
        modules.to(device)
        assert modules[0].weight is modules[1].weight
        modules.to(BF16)
        assert {each.dtype for each in modules.parameters()} == {BF16}
        assert {each.device for each in modules.parameters()} == {CUDA}
    assert counts.uploads == {"blocking": 3}


def test_autocast_casts_products_and_weights_once() -> None:
    with fake_cuda() as counts:
        x, weight = matrix(), matrix().requires_grad_()
        counts.clear()
        with torch.autocast("cuda", BF16):
            assert (F.linear(F.linear(x, weight), weight)).dtype is BF16
    assert counts.launches == {"aten._to_copy": 2, "aten.mm": 2}


def test_optimizers_take_a_devices_path() -> None:
    with fake_cuda() as counts:
        parameters = [torch.nn.Parameter(matrix()) for _ in range(20)]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        optimizer = torch.optim.AdamW(parameters)
        optimizer.step()
        counts.clear()
        optimizer.step()
    assert counts.num_launches < 20
    assert all(name.startswith("aten._foreach") for name in counts.launches)


def test_a_base_model_of_any_size_takes_no_memory() -> None:
    config = LlamaConfig(hidden_size=8192, intermediate_size=28672, num_hidden_layers=2, vocab_size=128_256)
    with fake_cuda() as counts:
        model = random_model(config, CUDA)
        counts.clear()
        logits = model(input_ids=torch.zeros((1, 4), dtype=torch.long, device="cuda"), use_cache=False).logits
    assert (logits.dtype, tuple(logits.shape)) == (BF16, (1, 4, 128_256))
    assert (counts.launches["aten.mm"], counts.num_syncs) == (15, 0)


def test_it_leaves_nothing_behind() -> None:
    before = torch.cuda.is_available()
    with fake_cuda():
        assert torch.cuda.is_available()
        assert torch.cuda.get_device_capability() == (9, 0)
    assert torch.cuda.is_available() == before
    assert torch.ones(2).tolist() == [1.0, 1.0]
