"""Where and how a script computes: precision, processes, seeds, torch.compile."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from utils.config import RunConfig
from utils.device import Engine, choose_dtype, compiled, seed_everything, start_engine
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_precision_is_a_dtype(precision, dtype):
    assert choose_dtype(precision, CPU) is dtype


@pytest.mark.parametrize("has_bf16, dtype", [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_bf16_where_the_device_has_it(monkeypatch, has_bf16, dtype):
    monkeypatch.setattr("utils.device._cpu_has_bf16", lambda: has_bf16)
    assert choose_dtype("auto", CPU) is dtype


@pytest.mark.parametrize("capability, dtype", [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_auto_does_not_take_bf16_that_a_gpu_emulates(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert choose_dtype("auto", torch.device("cuda")) is dtype


def test_half_precision_needs_a_gpu():
    with pytest.raises(UserError, match='run.precision is "fp16", which needs a GPU'):
        choose_dtype("fp16", CPU)


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_a_broken_environment_of_torchrun_is_named(monkeypatch, name):
    monkeypatch.setenv(name, "two")
    with pytest.raises(UserError, match=f"the environment variable {name} is 'two'; expected a number"):
        start_engine(RunConfig(device="cpu"))


def test_a_process_alone_is_the_main_one(monkeypatch):
    threads = torch.get_num_threads()
    engine = start_engine(RunConfig(device="cpu", precision="fp32", threads=1))
    torch.set_num_threads(threads)
    assert engine == Engine(CPU, torch.float32, 0, 1)
    assert engine.is_main
    assert engine.sum_over_processes(torch.tensor([2.0])).tolist() == [2.0]
    assert engine.mean_over_processes(torch.tensor([2.0])).tolist() == [2.0]
    engine.barrier()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_networks_compute_in_the_engines_precision(dtype):
    with Engine(CPU, dtype).autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype is dtype


def test_the_same_seed_draws_the_same_everywhere():
    def drawn() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(()).item()

    seed_everything(7)
    first = drawn()
    seed_everything(7)
    assert drawn() == first
    seed_everything(8)
    assert drawn() != first


def test_without_a_compiler_a_network_is_used_as_it_is_and_that_is_said(monkeypatch, capsys):
    def fail(_):
        raise RuntimeError("no compiler\nand much more")

    monkeypatch.setattr(torch, "compile", fail)
    network = nn.Linear(2, 2)
    assert compiled(network, wanted=False) is network
    assert capsys.readouterr().out == ""
    assert compiled(network, wanted=True) is network
    assert "torch.compile does not work here (no compiler); going on without it." in capsys.readouterr().out
